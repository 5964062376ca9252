"""`check` names every damaged file in one run, and finds nothing in whole datasets."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import exports
import pytest

Call = Callable[..., int]


def findings(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """(split, rule) -> what `--json` says about it."""
    content = json.loads(path.read_text())
    return {(problem["split"], problem["rule"]): problem for problem in content["problems"]}


@pytest.mark.parametrize("export", [*exports.WITH_SPLITS, *exports.WITHOUT_SPLITS])
def test_exports_of_tools_have_no_errors(export: Callable, call: Call, tmp_path: Path):
    export(tmp_path / "data")
    assert call("check", "--root", "data", "--json", "found.json") == 0
    content = json.loads((tmp_path / "found.json").read_text())
    assert content["errors"] == 0
    assert sum(split["images"] for split in content["splits"].values()) == 4
    assert sum(split["objects"] for split in content["splits"].values()) == 4


def test_every_damaged_yolo_file_is_named_in_one_run(
    call: Call, write: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture
):
    items = [
        write.Item(f"{index:02}.jpg", (40, 40), [("cat", 2, 2, 30, 30)]) for index in range(12)
    ]
    root = write.yolo(tmp_path / "data", items)
    write.yolo(tmp_path / "data", items[:1], split="val")  # the same image
    labels, images = root / "labels/train", root / "images/train"
    for name in ("09", "01", "02", "03"):
        (labels / f"{name}.txt").write_text("7 0.5 0.5 0.1 0.1\n")
    (labels / "04.txt").write_text("0 0.5 none 0.1 0.1\n")
    (labels / "05.txt").write_text("0 0.5 0.5 0 0.1\n")
    (images / "06.jpg").write_bytes((images / "06.jpg").read_bytes()[:-40])
    (images / "07.jpg").write_bytes(b"no image")
    (images / "08.jpg").unlink()
    assert call("check", "--root", root, "--json", "found.json", "--all") == 1
    found = findings(tmp_path / "found.json")
    assert {key: problem["count"] for key, problem in found.items() if problem["is_error"]} == {
        ("train", "annotation refused"): 4,
        ("train", "annotation unreadable"): 1,
        ("train", "box empty"): 1,
        ("train", "image truncated"): 1,
        ("train", "image undecodable"): 1,
        ("all", "annotation without an image"): 1,
        ("val", "image also in 'train'"): 1,
    }
    refused = found["train", "annotation refused"]["files"]
    assert [Path(line.partition(":")[0]).stem for line in refused] == ["01", "02", "03", "09"]
    printed = capsys.readouterr().out
    for name in ("09.txt", "03.txt", "04.txt", "05.txt", "06.jpg", "07.jpg", "08.txt"):
        assert name in printed
    assert call("check", "--root", root) == 1
    assert "... and 1 more (--all)" in capsys.readouterr().out


def test_a_split_that_cannot_be_read_does_not_hide_the_others(
    call: Call, write: SimpleNamespace, tmp_path: Path
):
    root = write.coco(tmp_path / "data")
    write.coco(root, split="val")
    write.coco(root, split="test")
    (root / "annotations/instances_val.json").write_text("{")
    content = json.loads((root / "annotations/instances_test.json").read_text())
    for row in content["annotations"]:
        row["category_id"] = 5
    (root / "annotations/instances_test.json").write_text(json.dumps(content))
    assert call("check", "--root", root, "--json", "found.json") == 1
    found = findings(tmp_path / "found.json")
    [reason] = found["val", "split unreadable"]["files"]
    assert "instances_val.json: not readable as JSON" in reason
    assert found["test", "annotation refused"]["count"] == 3
    assert found["test", "image also in 'train'"]["count"] == 3


@pytest.mark.parametrize("damaged", ["train", "val"])
def test_the_split_that_names_the_classes_may_be_damaged(
    damaged: str, call: Call, write: SimpleNamespace, tmp_path: Path
):
    root = write.coco(tmp_path / "data")
    write.coco(root, [write.Item("d.jpg", (40, 40), [("owl", 1, 1, 9, 9)])], split="val")
    (root / f"annotations/instances_{damaged}.json").write_text("{")
    assert call("check", "--root", root, "--json", "found.json") == 1
    content = json.loads((tmp_path / "found.json").read_text())
    [error] = [problem for problem in content["problems"] if problem["is_error"]]
    assert (error["split"], error["rule"]) == (damaged, "split unreadable")
    [(name, split)] = content["splits"].items()
    assert (name, split["objects"]) == (("val", 1) if damaged == "train" else ("train", 3))
    assert call("stats", "--root", root, "--out", "page.html") == 0


def test_voc_findings(call: Call, write: SimpleNamespace, tmp_path: Path):
    root = write.voc(tmp_path / "data")
    write.voc(root, [write.Item("d.jpg", (50, 40), [("yak", 1, 1, 30, 30)])], split="val")
    lists = root / "ImageSets/Main"
    (lists / "trainval.txt").write_text("a\nb\nc\nd\n")
    (lists / "cat_train.txt").write_text("a 1\nb -1\n")
    (lists / "train.txt").write_text("a\nb\nc\ngone\n")
    (root / "Annotations/b.xml").unlink()
    (root / "Annotations/extra.xml").write_text("<annotation/>")
    assert call("check", "--root", root, "--json", "found.json") == 1
    found = findings(tmp_path / "found.json")
    assert {key for key, problem in found.items() if problem["is_error"]} == {
        ("train", "image missing"),
        ("train", "annotation missing"),
        ("val", "annotation refused"),
        ("val", "no usable image"),
        ("all", "annotation without an image"),
    }
    assert found["train", "image without objects"]["files"] == [str(root / "JPEGImages/c.png")]


def test_lists_that_overlap_by_intent_are_no_leaks(
    call: Call, write: SimpleNamespace, tmp_path: Path
):
    root = tmp_path / "data"
    for year, seed in (("VOC2007", 0), ("VOC2012", 1)):
        for split in ("train", "val", "test"):
            size = (30 + seed, 40 + len(split))
            write.voc(root / year, [write.Item(f"{split}.jpg", size, [("cat", 1, 1, 9, 9)])], split)
        (root / year / "ImageSets/Main/trainval.txt").write_text("train\nval\n")
        (root / year / "ImageSets/Main/cat_trainval.txt").write_text("train 1\nval 1\n")
    words = ("data.train=2007/trainval+2012/trainval", "data.val=2007/test")
    assert call("check", "--root", root, *words, "--json", "found.json") == 0
    splits = json.loads((tmp_path / "found.json").read_text())["splits"]
    images = {name: split["images"] for name, split in splits.items()}
    assert images == {"2007/trainval+2012/trainval": 4, "2007/test": 1, "2012/test": 1}


def test_a_split_without_images_is_an_error(call: Call, write: SimpleNamespace, tmp_path: Path):
    write.coco(tmp_path / "data", [])
    assert call("check", "--root", "data", "--json", "found.json") == 1
    assert findings(tmp_path / "found.json")["train", "no usable image"]["is_error"]


@pytest.mark.parametrize("crowds", [2, 3])
def test_crowd_regions_are_told_and_an_error_where_there_is_nothing_else(
    crowds: int, call: Call, write: SimpleNamespace, tmp_path: Path
):
    root = write.coco(tmp_path / "data")
    path = root / "annotations/instances_train.json"
    content = json.loads(path.read_text())
    for row in content["annotations"][:crowds]:
        row["iscrowd"] = 1
    path.write_text(json.dumps(content))
    assert call("check", "--root", root, "--json", "found.json") == (crowds == 3)
    found = findings(tmp_path / "found.json")
    remark = found["train", "crowd region"]
    assert (remark["count"], remark["is_error"]) == (crowds, False)
    assert (("train", "only crowd regions") in found) == (crowds == 3)
    split = json.loads((tmp_path / "found.json").read_text())["splits"]["train"]
    assert (split["objects"], split["empty"]) == (3 - crowds, crowds)


def test_small_objects_depend_on_the_input(call: Call, write: SimpleNamespace, tmp_path: Path):
    item = write.Item("a.jpg", (416, 208), [("cat", 0, 0, 7, 9), ("dog", 50, 50, 58, 58)])
    root = write.yolo(tmp_path / "data", [item])
    for size, count in ((416, 1), (320, 2), (608, 0)):
        call("check", "--root", root, "--json", "found.json", f"input_size={size}")
        found = findings(tmp_path / "found.json")
        rule = f"object below 8 px at {size}x{size}"
        assert found.get(("train", rule), {"count": 0})["count"] == count


def test_mistakes_are_one_line_and_2(call: Call, tmp_path: Path, capsys: pytest.CaptureFixture):
    for words, message in (
        ((), "arguments are required"),
        (("chek",), "invalid choice: 'chek'"),
        (("check",), "expected --root FOLDER or --config FILE"),
        (("check", "--root", "nowhere"), "expected the folder nowhere, found none"),
        (("check", "--rot", "x"), "unknown option --rot; did you mean '--root'?"),
        (("check", "--root", tmp_path, "data.format=yolov5"), "data.format"),
    ):
        assert call(*words) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and message in error
