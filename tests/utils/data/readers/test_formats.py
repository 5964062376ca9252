"""VOC, COCO and YOLO text: the same data gives the same samples; splits; mistakes."""

import json

import numpy as np
import pytest
from pycocotools.coco import COCO

from tests.utils.data.read_results import load
from utils.core.errors import UserError
from utils.core.schema import DataConfig
from utils.data.readers.voc import list_splits
from utils.data.sample import Sample


def facts(sample: Sample) -> tuple:
    return (
        sample.path.name,
        sample.width,
        sample.height,
        sample.boxes.tolist(),
        sample.labels.tolist(),
    )


@pytest.mark.parametrize("format", ["voc", "coco", "yolo"])
def test_each_format_reads_what_was_written(format, write, tmp_path):
    split = load(format, getattr(write, format)(tmp_path), classes=list(write.names))
    assert split.class_names == write.names
    assert not split.report.counts
    for sample, item in zip(split.samples, write.items, strict=True):
        assert (sample.path.name, sample.width, sample.height) == (item.name, *item.size)
        np.testing.assert_allclose(
            sample.boxes, np.reshape([box[1:] for box in item.boxes], (-1, 4)), atol=1e-5
        )
        assert [write.names[label] for label in sample.labels] == [box[0] for box in item.boxes]
        assert sample.boxes.dtype == np.float32
        assert sample.labels.dtype == np.int64
        assert len(sample.difficult) == len(sample.crowd) == len(item.boxes)
        assert sample.difficult.dtype == sample.crowd.dtype == bool
    assert (split.report.images, split.report.objects, split.report.empty) == (3, 3, 1)
    assert split.report.per_class == {"cat": 1, "dog": 1, "owl": 1}


def test_class_lists_that_the_data_names(write, tmp_path):
    assert load("voc", write.voc(tmp_path / "voc")).class_names == ("cat", "dog", "owl")  # sorted
    coco = load("coco", write.coco(tmp_path / "coco"))
    assert coco.class_names == ("dog", "cat", "owl")  # by category id: 3, 7, 90
    assert [coco.class_names[label] for label in coco.samples[0].labels] == ["cat", "owl"]
    yolo = write.yolo(tmp_path / "yolo")
    assert load("yolo", yolo).class_names == write.names
    (yolo / "data.yaml").write_text("names: {1: dog, 0: cat, 2: owl}")
    assert load("yolo", yolo).class_names == write.names
    (yolo / "data.yaml").unlink()
    (yolo / "classes.txt").write_text("x\ny\nz\n")
    assert load("yolo", yolo).class_names == ("x", "y", "z")


def test_validation_split_takes_the_classes_of_the_training_split(write, tmp_path):
    only_owl = [write.Item("o.jpg", (20, 20), [("owl", 1, 1, 5, 5)])]
    root = write.voc(write.voc(tmp_path), only_owl, "holdout")
    split = load("voc", root, "val", val="holdout")
    assert split.class_names == write.names
    assert split.samples[0].labels.tolist() == [2]
    assert len(load("voc", root, "holdout").samples) == 1


def test_class_list_from_a_file(write, tmp_path, monkeypatch):
    root = write.voc(tmp_path / "voc")
    (tmp_path / "three.txt").write_text("owl\n\ndog\ncat\n", encoding="utf-8-sig")
    monkeypatch.chdir(tmp_path)
    assert load("voc", root, classes="three.txt").class_names == ("owl", "dog", "cat")
    assert load("voc", root, classes=str(tmp_path / "three.txt")).samples[0].labels.tolist() == [
        2,
        0,
    ]
    with pytest.raises(UserError, match="'cat' is listed twice"):
        load("voc", root, classes=["cat", "dog", "cat"])


def test_voc_devkit_folders_and_joined_lists(write, tmp_path):
    write.voc(tmp_path / "VOC2007", write.items[:1], "trainval")
    write.voc(tmp_path / "VOCdevkit/VOC2012", write.items[1:], "trainval")
    split = load("voc", tmp_path, train="2007/trainval+VOC2012/trainval")
    assert [sample.path.name for sample in split.samples] == ["a.jpg", "b.jpg", "c.png"]
    assert split.samples[1].path.parent == tmp_path / "VOCdevkit/VOC2012/JPEGImages"


def test_the_year_of_a_devkit_with_a_single_one_need_not_be_named(write, tmp_path):
    write.voc(tmp_path / "VOCdevkit/VOC2007", write.items, "train")
    for root in (tmp_path, tmp_path / "VOCdevkit"):
        assert list_splits(DataConfig(format="voc", root=str(root))) == ["train"]
        assert len(load("voc", root).samples) == len(load("voc", root, train="2007/train").samples)


def test_voc_coordinates_difficult_and_fractions(write, tmp_path):
    root = write.voc(tmp_path, write.items[:1])
    text = write.xml(write.Item("a.jpg", (60, 40), [("cat", 0, 0.5, 10.25, 39.5)]), difficult=1)
    (root / "Annotations/a.xml").write_text(text.replace("<xmin>1<", "<xmin>1.0<"))
    sample = load("voc", root).samples[0]
    assert sample.boxes.tolist() == [
        [0, 0.5, 10.25, 39.5]
    ]  # 1-based inclusive: only the near corner moves
    assert sample.difficult.tolist() == [True]


def test_voc_list_of_one_class_and_names_with_spaces(write, tmp_path):
    items = [
        write.Item("my owl.jpg", (20, 20), [("owl", 1, 1, 5, 5)]),
        write.Item("b 1.jpg", (20, 20)),
    ]
    root = write.voc(tmp_path, items)
    (root / "ImageSets/Main/train.txt").write_text("my owl  1\nb 1\n")
    assert [sample.path.stem for sample in load("voc", root).samples] == ["my owl", "b 1"]


def test_coco_agrees_with_pycocotools(write, tmp_path):
    rng = np.random.default_rng(0)
    items = []
    for index in range(12):
        corners = np.sort(rng.uniform(0, 40, (5, 2, 2)), 1).reshape(5, 4).round(2)
        items.append(
            write.Item(
                f"{index}.jpg",
                (40, 40),
                [(rng.choice(write.names), *box) for box in corners.tolist()],
            )
        )
    root = write.coco(tmp_path, items)
    path = root / "annotations/instances_train.json"
    content = json.loads(path.read_text())
    content["annotations"][3]["iscrowd"] = 1
    path.write_text(json.dumps(content))
    split, truth = load("coco", root), COCO(str(path))
    order = [truth.loadCats(number)[0]["name"] for number in sorted(truth.getCatIds())]
    assert list(split.class_names) == order
    for sample, image in zip(split.samples, content["images"], strict=True):
        rows = truth.loadAnns(truth.getAnnIds(imgIds=image["id"]))
        boxes = np.array([row["bbox"] for row in rows])
        np.testing.assert_allclose(sample.boxes[:, :2], boxes[:, :2], atol=1e-4)
        np.testing.assert_allclose(
            sample.boxes[:, 2:] - sample.boxes[:, :2], boxes[:, 2:], atol=1e-4
        )
        assert [split.class_names[label] for label in sample.labels] == [
            truth.loadCats(row["category_id"])[0]["name"] for row in rows
        ]
        assert sample.crowd.tolist() == [bool(row["iscrowd"]) for row in rows]
    assert sum(sample.crowd.sum() for sample in split.samples) == 1


def test_coco_split_as_a_path_and_images_below_images(write, tmp_path):
    root = write.coco(tmp_path)
    expected = [facts(sample) for sample in load("coco", root).samples]
    (root / "images").mkdir()
    (root / "train").rename(root / "images/train")
    assert [facts(sample) for sample in load("coco", root).samples] == expected
    path = root / "annotations/instances_train.json"
    assert [facts(sample) for sample in load("coco", root, str(path)).samples] == expected
    assert [
        facts(sample) for sample in load("coco", root, "instances_train.json").samples
    ] == expected


def test_yolo_other_layout_list_and_polygon(write, tmp_path):
    root = write.yolo(tmp_path / "one")
    expected = [facts(sample) for sample in load("yolo", root).samples]
    (root / "list.txt").write_text("./images/train/c.png\n" + str(root / "images/train/a.jpg"))
    assert [facts(sample) for sample in load("yolo", root, "list").samples] == [
        expected[2],
        expected[0],
    ]
    other = tmp_path / "two"
    (other / "train").mkdir(parents=True)
    (root / "images/train").rename(other / "train/images")
    (root / "labels/train").rename(other / "train/labels")
    (root / "data.yaml").rename(other / "data.yaml")
    (other / "train/labels/c.txt").write_text("2.0 0.1 0.2 0.5 0.4 0.3 0.9")
    samples = load("yolo", other).samples
    assert [facts(sample) for sample in samples[:2]] == expected[:2]
    np.testing.assert_allclose(samples[2].boxes, [[5, 10, 25, 45]], rtol=1e-6)


@pytest.mark.parametrize(
    ("root", "split", "count", "names"),
    [
        ("NEU-DET", "train", 1440, 6),
        ("NEU-DET", "test", 360, 6),
        ("BCCD", "train", 205, 3),
        ("BCCD", "val", 87, 3),
        ("BCCD", "test", 72, 3),
        ("BCCD", "trainval", 292, 3),
    ],
)
def test_real_data(root, split, count, names, datasets):
    dataset = load("voc", datasets / root, split)
    assert (len(dataset.samples), len(dataset.class_names)) == (count, names)
    for sample in dataset.samples:
        low, high = sample.boxes[:, :2], sample.boxes[:, 2:]
        assert (low >= 0).all()
        assert (high > low).all()
        assert (high <= (sample.width, sample.height)).all()


MISTAKES = {
    "missing data": (
        "voc",
        lambda root: None,
        {"root": "nowhere"},
        r"data\.root.*nowhere.*data\.download=true",
    ),
    "missing list": (
        "voc",
        lambda root: None,
        {"train": "tran"},
        r"tran\.txt.*did you mean 'train'",
    ),
    "missing year": ("voc", lambda root: None, {"train": "2007/train"}, r"VOC2007"),
    "unknown VOC class": (
        "voc",
        lambda root: None,
        {"classes": ["cats", "dog", "owl"]},
        r"a\.xml.*'cat'.*'cats'",
    ),
    "unknown COCO class": (
        "coco",
        lambda root: None,
        {"classes": ["cat", "dog"]},
        r"annotation 2: class 'owl'",
    ),
    "missing COCO file": (
        "coco",
        lambda root: None,
        {"train": "trian"},
        r"instances_trian\.json.*'train'",
    ),
    "broken COCO": (
        "coco",
        lambda root: (root / "annotations/instances_train.json").write_text("{"),
        {},
        r"instances_train\.json: not readable as JSON",
    ),
    "COCO without images": (
        "coco",
        lambda root: (root / "annotations/instances_train.json").write_text('{"annotations": []}'),
        {},
        "expected 'images' to be a list",
    ),
    "YOLO class beyond the list": (
        "yolo",
        lambda root: None,
        {"classes": ["cat", "dog"]},
        r"a\.txt:2: class 2.*0 to 1",
    ),
    "YOLO without names": (
        "yolo",
        lambda root: (root / "data.yaml").unlink(),
        {},
        r"data\.classes",
    ),
    "YOLO split": ("yolo", lambda root: None, {"train": "valid"}, r"images/valid"),
    "no usable image": (
        "voc",
        lambda root: [file.unlink() for file in (root / "JPEGImages").iterdir()],
        {"classes": ["cat"]},
        "no usable image.*3 x image missing",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_end_in_one_line(case, write, tmp_path, monkeypatch):
    format, spoil, keys, message = MISTAKES[case]
    root = getattr(write, format)(tmp_path)
    spoil(root)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        load(format, **({"root": root} | keys))
    assert "\n" not in str(caught.value)


def test_download_goes_through_torchvision(write, tmp_path, monkeypatch):
    torchvision = pytest.importorskip("torchvision.datasets")
    asked = []

    def fake(root, year, image_set, download):
        asked.append((root, year, image_set, download))
        write.voc(tmp_path / "VOCdevkit/VOC2012", split="val")

    monkeypatch.setattr(torchvision, "VOCDetection", fake)
    split = load("voc", tmp_path, download=True, train="2012/val")
    assert asked == [(str(tmp_path), "2012", "val", True)]
    assert len(split.samples) == 3
    with pytest.raises(UserError, match="cannot fetch split '2012/tset'"):
        load("voc", tmp_path, download=True, train="2012/tset")
