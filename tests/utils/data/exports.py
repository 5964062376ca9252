"""The same images and boxes, laid out as annotation tools export them.

Written from the documentation of the formats: docs.roboflow.com, docs.cvat.ai, labelstud.io/guide,
and the README of LabelImg.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import yaml
from dataset_files import ITEMS, NAMES, Item, make_image, xml

SPLITS = {"train": ITEMS, "valid": (Item("d.jpg", (40, 40), [("dog", 1, 2, 30, 38)]),)}
ALL_ITEMS = [item for items in SPLITS.values() for item in items]
SEEDS = {item.name: seed for seed, item in enumerate(ALL_ITEMS)}


def stem(item: Item) -> str:
    return Path(item.name).stem


def save(folder: Path, items: Iterable[Item]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for item in items:
        make_image(item.size, SEEDS[item.name]).save(folder / item.name)


def save_texts(folder: Path, items: Iterable[Item], suffix: str, text: Callable) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for item in items:
        (folder / f"{stem(item)}{suffix}").write_text(text(item))


def yolo_text(item: Item) -> str:
    width, height = item.size
    return "".join(
        f"{NAMES.index(name)} {(x1 + x2) / 2 / width!r} {(y1 + y2) / 2 / height!r} "
        f"{(x2 - x1) / width!r} {(y2 - y1) / height!r}\n"
        for name, x1, y1, x2, y2 in item.boxes
    )


def coco_text(items: Iterable[Item], first_id: int = 1, prefix: str = "") -> str:
    images, annotations = [], []
    for index, item in enumerate(items):
        width, height = item.size
        name = f"{prefix}{item.name}"
        images.append({"id": index, "file_name": name, "width": width, "height": height})
        for label, x1, y1, x2, y2 in item.boxes:
            box = [x1, y1, x2 - x1, y2 - y1]
            category = NAMES.index(label) + first_id
            row = {"id": len(annotations), "image_id": index, "category_id": category}
            annotations.append({**row, "bbox": box, "area": box[2] * box[3], "iscrowd": 0})
    categories = [
        {"id": index + first_id, "name": name, "supercategory": "animals"}
        for index, name in enumerate(NAMES)
    ]
    return json.dumps({"images": images, "annotations": annotations, "categories": categories})


# with splits


def roboflow_yolo(root: Path) -> None:
    for split, items in SPLITS.items():
        save(root / split / "images", items)
        save_texts(root / split / "labels", items, ".txt", yolo_text)
    paths = {"train": "../train/images", "val": "../valid/images", "test": "../test/images"}
    content = {**paths, "nc": len(NAMES), "names": list(NAMES), "roboflow": {"version": 1}}
    (root / "data.yaml").write_text(yaml.safe_dump(content))
    (root / "README.dataset.txt").write_text("animals > 2024")


def roboflow_darknet(root: Path) -> None:
    for split, items in SPLITS.items():
        save(root / split, items)
        save_texts(root / split, items, ".txt", yolo_text)
        (root / split / "_darknet.labels").write_text("\n".join(NAMES))


def roboflow_coco(root: Path) -> None:
    for split, items in SPLITS.items():
        save(root / split, items)
        content = json.loads(coco_text(items))
        group = {"id": 0, "name": "animals", "supercategory": "none"}
        content["categories"].insert(0, group)
        (root / split / "_annotations.coco.json").write_text(json.dumps(content))


def roboflow_voc(root: Path) -> None:
    for split, items in SPLITS.items():
        save(root / split, items)
        save_texts(root / split, items, ".xml", xml)


def ultralytics(root: Path) -> None:
    for split, items in SPLITS.items():
        name = "val" if split == "valid" else split
        save(root / "images" / name, items)
        save_texts(root / "labels" / name, items, ".txt", yolo_text)
    names = dict(enumerate(NAMES))
    content = {"path": ".", "train": "images/train", "val": "images/val", "names": names}
    (root / "animals.yaml").write_text(yaml.safe_dump(content))


def cvat_yolo(root: Path) -> None:
    keys = {"train": "train", "valid": "valid"}
    for split, items in SPLITS.items():
        save(root / f"obj_{split}_data", items)
        save_texts(root / f"obj_{split}_data", items, ".txt", yolo_text)
        lines = [f"data/obj_{split}_data/{item.name}" for item in items]
        (root / f"{split}.txt").write_text("\n".join(lines) + "\n")
    (root / "obj.names").write_text("\n".join(NAMES) + "\n")
    lines = [f"classes = {len(NAMES)}", *(f"{key} = data/{name}.txt" for key, name in keys.items())]
    text = "\n".join([*lines, "names = data/obj.names", "backup = backup/"])
    (root / "obj.data").write_text(text)


# without splits


def cvat_coco(root: Path) -> None:
    save(root / "images" / "default", ALL_ITEMS)
    (root / "annotations").mkdir()
    (root / "annotations/instances_default.json").write_text(coco_text(ALL_ITEMS))


def cvat_voc(root: Path) -> None:
    save(root / "JPEGImages", ALL_ITEMS)
    save_texts(root / "Annotations", ALL_ITEMS, ".xml", xml)
    (root / "ImageSets/Main").mkdir(parents=True)
    (root / "ImageSets/Main/default.txt").write_text("\n".join(map(stem, ALL_ITEMS)))
    (root / "labelmap.txt").write_text("# label:color_rgb:parts:actions\ncat:128,0,0::\n")


def label_studio_yolo(root: Path) -> None:
    save(root / "images", ALL_ITEMS)
    save_texts(root / "labels", ALL_ITEMS, ".txt", yolo_text)
    (root / "classes.txt").write_text("\n".join(NAMES) + "\n")
    categories = [{"id": index, "name": name} for index, name in enumerate(NAMES)]
    (root / "notes.json").write_text(json.dumps({"categories": categories, "info": {}}))


def label_studio_coco(root: Path) -> None:
    save(root / "images", ALL_ITEMS)
    (root / "result.json").write_text(coco_text(ALL_ITEMS, first_id=0, prefix="images/"))


def label_studio_voc(root: Path) -> None:
    save(root / "images", ALL_ITEMS)
    save_texts(root / "Annotations", ALL_ITEMS, ".xml", xml)


def labelimg_voc(root: Path) -> None:
    save(root, ALL_ITEMS)
    save_texts(root, ALL_ITEMS, ".xml", xml)


def labelimg_yolo(root: Path) -> None:
    save(root, ALL_ITEMS)
    save_texts(root, ALL_ITEMS, ".txt", yolo_text)
    (root / "classes.txt").write_text("\n".join(NAMES) + "\n")


WITH_SPLITS = (
    roboflow_yolo,
    roboflow_darknet,
    roboflow_coco,
    roboflow_voc,
    ultralytics,
    cvat_yolo,
)
WITHOUT_SPLITS = (
    cvat_coco,
    cvat_voc,
    label_studio_yolo,
    label_studio_coco,
    label_studio_voc,
    labelimg_voc,
    labelimg_yolo,
)
