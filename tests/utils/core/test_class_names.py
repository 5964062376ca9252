"""Class names: from the configuration, a file in any working directory, or by their number."""

from pathlib import Path

import pytest

from utils.core.class_names import default_class_names, padded, read_class_names
from utils.core.errors import UserError


@pytest.mark.parametrize(
    ("classes", "expected"), [(["a", "b"], 2), ("voc_classes.txt", 20), ("coco_classes.txt", 80)]
)
def test_names_are_found_from_any_folder(
    classes, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    names = read_class_names(classes)
    assert names is not None and len(names) == expected


def test_a_file_as_given_goes_before_the_projects_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("voc_classes.txt").write_text("\ufeffbolt\n\n nut \n", encoding="utf-8")
    assert read_class_names("voc_classes.txt") == ("bolt", "nut")


def test_no_classes_are_none():
    assert read_class_names(None) is None


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ("voc_clases.txt", r"no file voc_clases.txt.*did you mean 'voc_classes.txt'"),
        ([], "class list is empty"),
        (["a", "b", "a"], "'a' is listed twice"),
    ],
)
def test_mistakes_are_named(classes, words: str):
    with pytest.raises(UserError, match=words):
        read_class_names(classes)


def test_weights_without_names_are_called_by_their_number():
    assert default_class_names(20)[0] == "aeroplane" and len(default_class_names(80)) == 80
    assert default_class_names(3) == ["class 0", "class 1", "class 2"]


def test_a_chinese_character_takes_two_columns():
    assert padded(["螺栓", "nut", "nut"]) == ["螺栓", "nut ", "nut "]
