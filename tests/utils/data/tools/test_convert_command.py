"""Converted datasets are what we, supervision and pycocotools read; classes can be chosen."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import exports
import numpy as np
import pytest
import yaml
from PIL import Image

from tests.utils.data.read_results import read_back
from utils.core.config import make_config
from utils.core.errors import UserError
from utils.data.tools.inventory import read_inventory
from utils.data.tools.writers import FORMATS, check_new_folder


def test_images_of_the_same_name_are_all_written(
    call: Callable[..., int], write: SimpleNamespace, tmp_path: Path
):
    root = tmp_path / "data"
    for number, folder in enumerate(("train/one", "train/two", "val/one")):
        item = write.Item("a.jpg", (30 + number, 40), [("cat", 1, 1, 20, 20 + number)])
        exports.SEEDS["a.jpg"] = number
        exports.save(root / folder, [item])
        exports.save_texts(root / folder, [item], ".xml", exports.xml)
    for file_format in FORMATS:
        assert call("convert", "--root", "data", "--to", file_format, "--out", file_format) == 0
        found = read_back(tmp_path / file_format, file_format)
        assert [len(found.splits[name].samples) for name in ("train", "val")] == [2, 1]
        heights = {s.width: float(s.boxes[0][3]) for s in found.samples()}
        assert heights == pytest.approx({30: 20, 31: 21, 32: 22}, abs=1e-3)
        names = {split: [s.path.stem for s in c.samples] for split, c in found.splits.items()}
        assert names["train"] == ["a", "two_a"]
        assert names["val"] == (["one_a"] if file_format == "voc" else ["a"])


@pytest.mark.parametrize("export", [exports.roboflow_yolo, exports.roboflow_coco, exports.cvat_voc])
@pytest.mark.parametrize("file_format", FORMATS)
def test_converted_exports_are_those_that_supervision_and_pycocotools_read(
    export: Callable, file_format: str, call: Callable[..., int], tmp_path: Path
):
    supervision = pytest.importorskip("supervision")
    export(tmp_path / "data")
    assert call("convert", "--root", "data", "--to", file_format, "--out", "new") == 0
    new = tmp_path / "new"
    source = read_inventory(make_config({"data": {"root": str(tmp_path / "data")}}))
    wanted = {
        s.path.name: sorted(
            (source.class_names[n], *b) for n, b in zip(s.labels, s.boxes.tolist(), strict=True)
        )
        for s in source.splits[source.data.train].samples
    }
    loader = supervision.DetectionDataset
    if file_format == "yolo":
        read = loader.from_yolo(
            str(new / "images/train"), str(new / "labels/train"), str(new / "data.yaml")
        )
    elif file_format == "coco":
        read = loader.from_coco(str(new / "train"), str(new / "annotations/instances_train.json"))
    else:
        read = loader.from_pascal_voc(str(new / "JPEGImages"), str(new / "Annotations"))
    found = {
        Path(path).name: sorted(
            (read.classes[n], *b) for n, b in zip(a.class_id, a.xyxy.tolist(), strict=True)
        )
        for path, a in read.annotations.items()
    }
    assert found.keys() >= wanted.keys()
    for name, rows in wanted.items():
        for own, other in zip(rows, found[name], strict=True):
            assert own[0] == other[0]
            # supervision takes Pascal VOC's pixel numbers as edges
            np.testing.assert_allclose(
                own[1:], other[1:], atol=1.01 if file_format == "voc" else 0.01
            )
    if file_format == "coco":
        from pycocotools.coco import COCO

        coco = COCO(str(new / "annotations/instances_train.json"))
        names = {image["file_name"] for image in coco.loadImgs(coco.getImgIds())}
        assert names == set(wanted)
        assert len(coco.getAnnIds()) == sum(map(len, wanted.values()))
        assert not any(row["iscrowd"] for row in coco.loadAnns(coco.getAnnIds()))


def test_data_yaml_is_as_ultralytics_reads_it(
    call: Callable[..., int], write: SimpleNamespace, tmp_path: Path
):
    write.yolo(tmp_path / "data", names=("yes", "007", "o: x"), items=[write.Item("a.jpg", (9, 9))])
    write.yolo(
        tmp_path / "data",
        names=("yes", "007", "o: x"),
        items=[write.Item("b.jpg", (9, 8))],
        split="val",
    )
    assert call("convert", "--root", "data", "--to", "yolo", "--out", "new", "--link") == 0
    content = yaml.safe_load((tmp_path / "new/data.yaml").read_text())
    assert content == {
        "train": "images/train",
        "val": "images/val",
        "names": {0: "yes", 1: "007", 2: "o: x"},
    }
    image = tmp_path / "new/images/train/a.jpg"
    assert image.is_symlink() and Image.open(image).size == (9, 9)
    assert (tmp_path / "new/labels/train/a.txt").read_text() == ""


def test_classes_are_kept_merged_and_renamed(
    call: Callable[..., int], write: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture
):
    write.yolo(tmp_path / "data")
    base = ("convert", "--root", "data", "--to", "coco")
    words = ("--merge", "pet=cat,dog", "--rename", "owl=bird")
    assert call(*base, "--out", "all", *words) == 0
    found = read_back(tmp_path / "all", "coco")
    assert found.class_names == ("pet", "bird")
    assert found.splits["train"].report.per_class == {"pet": 2, "bird": 1}
    assert call(*base, "--out", "some", "--classes", "bird", "pet", *words, "input_size=64") == 0
    assert read_back(tmp_path / "some", "coco").class_names == ("bird", "pet")
    capsys.readouterr()
    assert call(*base, "--out", "one", "--classes", "dog") == 0
    printed = capsys.readouterr().out
    assert "1 objects of 'cat' left out" in printed and "1 objects of 'owl' left out" in printed
    one = read_back(tmp_path / "one", "coco").splits["train"]
    assert (one.report.images, one.report.objects, one.report.empty) == (3, 1, 2)
    for words, message in (
        (("--classes", "dgo"), "--classes: there is no class 'dgo'; did you mean 'dog'?"),
        (("--merge", "pet=cat,dgo"), "there is no class 'dgo'; did you mean 'dog'?"),
        (("--merge", "pet"), "expected NEW=OLD,OLD"),
        (("--rename", "cot=x"), "there is no such class; did you mean 'cat'?"),
        (("--rename", "cat=dog"), "'dog' is a class, too: use --merge"),
        (("--rename", "cat= "), "expected a class name, got none"),
    ):
        assert call(*base, "--out", "bad", *words) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "bad").exists()


def test_datasets_are_joined_by_class_names(
    call: Callable[..., int], write: SimpleNamespace, tmp_path: Path
):
    write.yolo(tmp_path / "a", names=("cat", "dog", "owl"))
    items = [write.Item("a.jpg", (33, 33), [("owl", 1, 1, 9, 9), ("yak", 3, 3, 20, 20)])]
    write.coco(tmp_path / "b", items, names=("yak", "owl"), ids=(4, 2))
    assert call("convert", "--root", "a", "b", "--to", "yolo", "--out", "new") == 0
    found = read_back(tmp_path / "new", "yolo")
    assert found.class_names == ("cat", "dog", "owl", "yak")
    assert found.splits["train"].report.per_class == {"cat": 1, "dog": 1, "owl": 2, "yak": 1}
    assert found.splits["train"].report.images == 4


def test_the_new_folder_must_be_new_and_elsewhere(
    call: Callable[..., int], write: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture
):
    write.yolo(tmp_path / "data")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    (tmp_path / "file").touch()
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "inside").symlink_to("data/images")
    base = ("convert", "--root", "data/data.yaml", "--to", "voc", "--out")
    for out, message in (
        ("full", "expected a new or empty folder, found files"),
        ("file", "expected a new or empty folder, found files"),
        ("file/new", "is not a folder"),
        ("data/new", "lies in the dataset data"),
        ("inside/new", "lies in the dataset data"),
    ):
        assert call(*base, out) == 2
        assert message in capsys.readouterr().err
    assert call(*base, "link") == 0
    assert (tmp_path / "real/ImageSets/Main/train.txt").is_file()
    with pytest.raises(UserError, match="expected a new or empty folder"):
        check_new_folder(tmp_path / "real", [])


def test_drawn_images_become_files(call: Callable[..., int], tmp_path: Path):
    words = ("data.shapes_train=4", "data.shapes_val=3", "input_size=64")
    assert call("convert", "--config", "shapes.yaml", "--to", "voc", "--out", "new", *words) == 0
    found = read_back(tmp_path / "new", "voc").splits
    assert [found[name].report.images for name in ("train", "val")] == [4, 3]
    assert call("check", "--config", "shapes.yaml", *words) == 0
    assert call("check", "--root", "new") == 0


def test_coco_json_is_valid_unicode(
    call: Callable[..., int], write: SimpleNamespace, tmp_path: Path
):
    write.yolo(tmp_path / "data", [write.Item("甲.jpg", (20, 20))], names=("甲虫", "b", "c"))
    assert call("convert", "--root", "data", "--to", "coco", "--out", "new") == 0
    content = json.loads((tmp_path / "new/annotations/instances_train.json").read_text("utf-8"))
    assert content["images"] == [{"id": 1, "file_name": "甲.jpg", "width": 20, "height": 20}]
    assert content["categories"][0] == {"id": 1, "name": "甲虫"}
