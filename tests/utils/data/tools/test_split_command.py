"""A dataset is divided by classes, into a new one or into lists."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.utils.data.read_results import read_back


def test_split_writes_a_dataset_or_lists(
    call: Callable[..., int], write: SimpleNamespace, tmp_path: Path
):
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
    call: Callable[..., int], write: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture
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
