"""Which annotation belongs to an image, by their names and folders."""

from pathlib import Path

import pytest

from utils.data.readers.folder_tree import FolderTree
from utils.data.readers.yolo import LabelFinder


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        # the annotation of another image of that name is not taken
        ("images/train/1.jpg images/val/1.jpg labels/val/1.xml", None),
        ("train/1.jpg valid/1.jpg valid/1.xml", None),
        ("train/1.jpg a/val/1.jpg a/test/1.jpg b/val/1.xml b/test/1.xml", None),
        ("train/1.jpg val/1.jpg val/1.xml xml/1.xml", "xml/1.xml"),
        ("A.jpg a.jpg a.xml", None),
        # it has one itself
        ("train/1.jpg val/1.jpg xml/train/1.xml xml/val/1.xml", "xml/train/1.xml"),
        ("train/1.jpg val/2.jpg xml/1.xml", "xml/1.xml"),
        ("1.jpg 1.xml xml/1.xml", "1.xml"),
    ],
)
@pytest.mark.parametrize("absolute", [False, True])
def test_an_annotation_belongs_to_the_closest_image(
    absolute, files, expected, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    names = files.split()
    touch(tmp_path, *names)
    image = tmp_path / names[0] if absolute else Path(names[0])
    assert FolderTree(Path(), ".xml").annotation_of(image) == (expected and Path(expected))


@pytest.mark.parametrize("others", ["x/1.txt", "x/1.txt y/1.txt"])
def test_an_image_elsewhere_takes_no_annotation(others, tmp_path):
    touch(tmp_path, *(f"data/{name}" for name in others.split()), "set/1.jpg")
    image = tmp_path / "data/../set/1.jpg"
    assert FolderTree(tmp_path / "data", ".txt").annotation_of(image) is None


def test_labels_are_searched_only_where_no_folder_stands_for_them(tmp_path):
    touch(tmp_path, "images/train/1.jpg", "labels/val/1.txt")
    find = LabelFinder(tmp_path)
    image = tmp_path / "images/train/1.jpg"
    assert find(image) == tmp_path / "labels/val/1.txt"
    (tmp_path / "labels/train").mkdir()
    assert find(image) is None
