"""Round trips: what is written is read back the same, by us, by supervision and by pycocotools."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import exports
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from utils.core.config import make_config
from utils.core.errors import UserError
from utils.data.sample import Sample
from utils.data.tools.inventory import read_inventory
from utils.data.tools.selection import Selection
from utils.data.tools.writers import FORMATS, WrittenDataset, check_new_folder, write_dataset

Call = Callable[..., int]
NAMES = ("kitty cat", "7", "a/b", "Käfer 甲虫", "yes", "x: y #z, {w}")


@st.composite
def boxes(draw: st.DrawFn, width: int, height: int, least: float) -> list[float]:
    """A box inside the image, at least `least` wide and high, in 64ths of a pixel."""
    x1 = draw(st.integers(0, int((width - least) * 64))) / 64
    y1 = draw(st.integers(0, int((height - least) * 64))) / 64
    x2 = draw(st.integers(int((x1 + least) * 64), width * 64)) / 64
    y2 = draw(st.integers(int((y1 + least) * 64), height * 64)) / 64
    return [x1, y1, x2, y2]


STEMS = st.sampled_from(
    ["a", "A", "b 1", "ü", "甲", "x.jpg", ".h", "q'uote", 'd"q', "new\nline", "b\\s", " s "]
)


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    """A drawn image in any folder, with any objects."""
    width, height = draw(st.integers(8, 60)), draw(st.integers(8, 60))
    items = draw(st.lists(boxes(width, height, 1.0), max_size=4, unique_by=tuple))
    count = len(items)
    flags = st.lists(st.booleans(), min_size=count, max_size=count)
    crowd = np.array(draw(flags), np.bool_)
    labels = st.lists(st.integers(0, len(NAMES) - 1), min_size=count, max_size=count)
    color = draw(st.integers(0, 255))
    return Sample(
        path=Path(draw(st.sampled_from(["", "one", "two/deep"]))) / f"{draw(STEMS)}.png",
        width=width,
        height=height,
        boxes=np.array(items, np.float32).reshape(-1, 4),
        labels=np.array(draw(labels), np.int64),
        difficult=np.array(draw(flags), np.bool_) & ~crowd,
        crowd=crowd,
        draw=lambda: np.full((height, width, 3), color, np.uint8),
    )


def objects(sample: Sample, names: Sequence[str], file_format: str) -> list[tuple]:
    """What the format can hold of the objects, sorted."""
    rows = []
    for box, label, difficult, crowd in zip(
        sample.boxes.tolist(), sample.labels, sample.difficult, sample.crowd, strict=True
    ):
        if file_format != "coco" and crowd:
            continue
        flag = bool(crowd if file_format == "coco" else difficult and file_format == "voc")
        rows.append((names[label], flag, *(round(value, 2) for value in box)))
    return sorted(rows)


def read_back(folder: Path, file_format: str):
    data = {"root": str(folder), "format": file_format}
    return read_inventory(make_config({"data": data}), progress=False)


@pytest.mark.parametrize("file_format", FORMATS)
@given(
    train=st.lists(samples(), min_size=1, max_size=5),
    val=st.lists(samples(), min_size=1, max_size=3),
)
@settings(max_examples=25)
def test_what_is_written_is_read_back(
    file_format: str,
    train: list[Sample],
    val: list[Sample],
    tmp_path_factory: pytest.TempPathFactory,
):
    # every class is in the training split: Pascal VOC has no other list of them
    full = np.array([[0, 0, 9, 9]] * len(NAMES), np.float32) + np.arange(len(NAMES))[:, None]
    train = [
        Sample(
            Path("all.png"),
            60,
            60,
            full,
            np.arange(len(NAMES)),
            np.zeros(len(NAMES), np.bool_),
            np.zeros(len(NAMES), np.bool_),
            draw=lambda: np.zeros((60, 60, 3), np.uint8),
        ),
        *train,
    ]
    out = tmp_path_factory.mktemp("out") / "new"
    selection = Selection(NAMES, {"train": train, "val": val})
    written = write_dataset(selection, out, file_format, progress=False)
    assert written.counts == {"train": len(train), "val": len(val)}
    found = read_back(out, file_format)
    assert set(found.class_names) == set(NAMES)
    if file_format != "voc":
        assert found.class_names == NAMES
    for split, originals in (("train", train), ("val", val)):
        contents = found.splits[split]
        assert not {rule for rule in contents.report.counts if rule not in ALLOWED}
        ours = [(s.width, s.height, objects(s, NAMES, file_format)) for s in originals]
        theirs = [
            (s.width, s.height, objects(s, found.class_names, file_format))
            for s in contents.samples
        ]
        for first, second in zip(sorted(ours), sorted(theirs), strict=True):
            assert first[:2] == second[:2] and len(first[2]) == len(second[2])
            for own, other in zip(first[2], second[2], strict=True):
                assert own[:2] == other[:2]
                np.testing.assert_allclose(own[2:], other[2:], atol=0.011)
    crowd, difficult = (
        sum(int(getattr(s, key).sum()) for s in [*train, *val]) for key in ("crowd", "difficult")
    )
    assert written.losses["crowd region left out"] == (crowd if file_format != "coco" else 0)
    assert written.losses["flag 'difficult' lost"] == (difficult if file_format != "voc" else 0)


ALLOWED = {"image identical to another"}


def test_a_box_below_a_pixel_is_told(tmp_path: Path):
    box = np.array([[3.25, 4, 3.75, 9]], np.float32)
    sample = Sample(
        Path("a.png"),
        20,
        20,
        box,
        np.zeros(1, np.int64),
        np.zeros(1, np.bool_),
        np.zeros(1, np.bool_),
        draw=lambda: np.zeros((20, 20, 3), np.uint8),
    )
    for file_format, count in (("voc", 1), ("yolo", 0), ("coco", 0)):
        selection = Selection(("a",), {"train": [sample]})
        written = write_dataset(selection, tmp_path / file_format, file_format, progress=False)
        assert written.losses["box widened to a pixel"] == count
        [found] = read_back(tmp_path / file_format, file_format).samples()
        wanted = [3.25, 4, 4.25, 9] if count else box[0]
        np.testing.assert_allclose(found.boxes[0], wanted, atol=1e-4)


def test_images_of_the_same_name_are_all_written(
    call: Call, write: SimpleNamespace, tmp_path: Path
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
    export: Callable, file_format: str, call: Call, tmp_path: Path
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


def test_data_yaml_is_as_ultralytics_reads_it(call: Call, write: SimpleNamespace, tmp_path: Path):
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
    call: Call, write: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture
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


def test_datasets_are_joined_by_class_names(call: Call, write: SimpleNamespace, tmp_path: Path):
    write.yolo(tmp_path / "a", names=("cat", "dog", "owl"))
    items = [write.Item("a.jpg", (33, 33), [("owl", 1, 1, 9, 9), ("yak", 3, 3, 20, 20)])]
    write.coco(tmp_path / "b", items, names=("yak", "owl"), ids=(4, 2))
    assert call("convert", "--root", "a", "b", "--to", "yolo", "--out", "new") == 0
    found = read_back(tmp_path / "new", "yolo")
    assert found.class_names == ("cat", "dog", "owl", "yak")
    assert found.splits["train"].report.per_class == {"cat": 1, "dog": 1, "owl": 2, "yak": 1}
    assert found.splits["train"].report.images == 4


def test_split_writes_a_dataset_or_lists(call: Call, write: SimpleNamespace, tmp_path: Path):
    items = [
        write.Item(f"{n}.jpg", (30 + n, 40), [("owl" if n < 4 else "cat", 1, 1, 20, 20)])
        for n in range(20)
    ]
    write.yolo(tmp_path / "data", items)
    base = ("split", "--root", "data", "--val-share", 0.25)
    assert call(*base, "--out", "new") == 0
    found = read_back(tmp_path / "new", "yolo")
    per_class = {name: split.report.per_class for name, split in found.splits.items()}
    assert per_class == {
        "train": {"cat": 12, "dog": 0, "owl": 3},
        "val": {"cat": 4, "dog": 0, "owl": 1},
    }
    assert call(*base, "--out", "lists", "--lists") == 0
    listed = read_back(tmp_path / "lists", "yolo")
    for name, split in found.splits.items():
        names = {sample.path.name for sample in split.samples}
        assert names == {sample.path.name for sample in listed.splits[name].samples}
        assert split.report.per_class == listed.splits[name].report.per_class
    assert call(*base, "--out", "three", "--test-share", 0.25, "--to", "voc") == 0
    three = read_back(tmp_path / "three", "voc").splits
    assert {name: split.report.images for name, split in three.items()} == {
        "train": 10,
        "val": 5,
        "test": 5,
    }
    # the test images stay what they are
    assert (
        call("split", "--root", "three", "--of", "train", "val", "--seed", 4, "--out", "again") == 0
    )
    again = read_back(tmp_path / "again", "voc").splits
    tests = [{s.path.name for s in splits["test"].samples} for splits in (three, again)]
    assert tests[0] == tests[1]


def test_mistakes_of_split(
    call: Call, write: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture
):
    write.yolo(tmp_path / "data")
    base = ("split", "--root", "data", "--out", "new")
    for words, message in (
        (("--val-share", 0.6, "--test-share", 0.4), "expected a sum below 1"),
        (("--val-share", 1.5), "expected a number from 0.0001 to 0.9999"),
        (("--val-share", 0.1), "3 images are too few to divide: none is left for val"),
        (("--of", "tran"), "there is no split 'tran'; did you mean 'train'?"),
        (("--lists", "--classes", "cat"), "--lists: leaves images and labels"),
        (("--lists", "--root", "data", "data"), "--lists: leaves images and labels"),
    ):
        assert call(*base, *words) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
        assert not (tmp_path / "new").exists()


def test_the_new_folder_must_be_new_and_elsewhere(
    call: Call, write: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture
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


def test_drawn_images_become_files(call: Call, tmp_path: Path):
    words = ("data.shapes_train=4", "data.shapes_val=3", "input_size=64")
    assert call("convert", "--config", "shapes.yaml", "--to", "voc", "--out", "new", *words) == 0
    found = read_back(tmp_path / "new", "voc").splits
    assert [found[name].report.images for name in ("train", "val")] == [4, 3]
    assert call("check", "--config", "shapes.yaml", *words) == 0
    assert call("check", "--root", "new") == 0


def test_losses_are_told(tmp_path: Path):
    written = WrittenDataset(tmp_path, {"train": 2})
    written.losses.update({"crowd region left out": 2, "flag 'difficult' lost": 0})
    assert written.lines() == [
        "  2 x crowd region left out",
        "  there is no split 'val': `split --of train` makes one",
        f"written: {tmp_path} (train 2 images)",
    ]


def test_voc_refuses_class_names_that_it_cannot_hold(write: SimpleNamespace, tmp_path: Path):
    root = write.yolo(tmp_path / "data")
    samples = read_back(root, "yolo").samples()
    selection = Selection(("cat ", "dog", "owl"), {"train": [replace(samples[0])]})
    with pytest.raises(UserError, match="class 'cat ': Pascal VOC drops blanks"):
        write_dataset(selection, tmp_path / "new", "voc", progress=False)


def test_coco_json_is_valid_unicode(call: Call, write: SimpleNamespace, tmp_path: Path):
    write.yolo(tmp_path / "data", [write.Item("甲.jpg", (20, 20))], names=("甲虫", "b", "c"))
    assert call("convert", "--root", "data", "--to", "coco", "--out", "new") == 0
    content = json.loads((tmp_path / "new/annotations/instances_train.json").read_text("utf-8"))
    assert content["images"] == [{"id": 1, "file_name": "甲.jpg", "width": 20, "height": 20}]
    assert content["categories"][0] == {"id": 1, "name": "甲虫"}
