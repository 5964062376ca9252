"""Small datasets on disk, written in each format from one description."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

NAMES = ("cat", "dog", "owl")


@dataclass
class Item:
    """An image to write; boxes are (class name, x1, y1, x2, y2), continuous edges in pixels."""

    name: str
    size: tuple[int, int]
    boxes: Sequence[tuple[str, float, float, float, float]] = ()


ITEMS = (
    Item("a.jpg", (60, 40), [("cat", 3, 4, 20, 30), ("owl", 0, 0, 60, 40)]),
    Item("b.jpg", (32, 64), [("dog", 10, 11, 12, 13)]),
    Item("c.png", (50, 50)),
)


def make_image(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """A smooth, colorful RGB image of (width, height)."""
    grid = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC)


def xml(item: Item, difficult: int = 0) -> str:
    objects = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult>"
        f"<bndbox><xmin>{x1 + 1}</xmin>"
        f"<ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for name, x1, y1, x2, y2 in item.boxes
    )
    width, height = item.size
    size = f"<size><width>{width}</width><height>{height}</height></size>"
    return f"<annotation>{size}{objects}</annotation>"


def write_images(folder: Path, items: Sequence[Item]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, item in enumerate(items):
        make_image(item.size, seed).save(folder / item.name)


def write_voc(root: Path, items: Sequence[Item] = ITEMS, split: str = "train") -> Path:
    write_images(root / "JPEGImages", items)
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for item in items:
        (root / "Annotations" / f"{Path(item.name).stem}.xml").write_text(xml(item))
    (root / f"ImageSets/Main/{split}.txt").write_text(
        "\n".join(Path(item.name).stem for item in items)
    )
    return root


def write_coco(
    root: Path,
    items: Sequence[Item] = ITEMS,
    split: str = "train",
    ids: Sequence[int] = (7, 3, 90),
    names: Sequence[str] = NAMES,
) -> Path:
    """Categories get `ids` in the order of `names`, and are listed backwards."""
    write_images(root / split, items)
    (root / "annotations").mkdir(exist_ok=True)
    numbers = dict(zip(names, ids, strict=True))
    images, rows = [], []
    for index, item in enumerate(items):
        images.append(
            {
                "id": 100 - index,
                "file_name": item.name,
                "width": item.size[0],
                "height": item.size[1],
            }
        )
        for name, x1, y1, x2, y2 in item.boxes:
            box = [x1, y1, x2 - x1, y2 - y1]
            row = {
                "image_id": 100 - index,
                "category_id": numbers[name],
                "bbox": box,
                "iscrowd": 0,
                "area": 1,
            }
            rows.append({"id": len(rows) + 1, **row})
    categories = [{"id": number, "name": name} for name, number in reversed(numbers.items())]
    content = {"images": images, "annotations": rows, "categories": categories}
    (root / f"annotations/instances_{split}.json").write_text(json.dumps(content))
    return root


def write_yolo(
    root: Path,
    items: Sequence[Item] = ITEMS,
    split: str = "train",
    names: Sequence[str] = NAMES,
) -> Path:
    write_images(root / "images" / split, items)
    (root / "labels" / split).mkdir(parents=True, exist_ok=True)
    for item in items:
        width, height = item.size
        lines = [
            f"{names.index(name)} {(x1 + x2) / 2 / width!r} {(y1 + y2) / 2 / height!r} "
            f"{(x2 - x1) / width!r} {(y2 - y1) / height!r}"
            for name, x1, y1, x2, y2 in item.boxes
        ]
        (root / "labels" / split / f"{Path(item.name).stem}.txt").write_text("\n".join(lines))
    (root / "data.yaml").write_text(yaml.safe_dump({"names": list(names)}))
    return root
