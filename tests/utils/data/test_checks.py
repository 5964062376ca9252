"""Every kind of dirty data, by a file that has it: what remains of it, and that it is counted."""

import json
import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

from tests.utils.data.read_results import load
from utils.data.duplicates import find_leaks
from utils.data.readers.file_finder import FileFinder


def box_data(write, root, *boxes):
    """A VOC set of one 60 x 40 image; boxes as (xmin, ymin, xmax, ymax) of the devkit."""
    shifted = [("cat", x1 - 1, y1 - 1, x2, y2) for x1, y1, x2, y2 in boxes]
    return load("voc", write.voc(root, [write.Item("a.jpg", (60, 40), shifted)]))


def test_box_beyond_the_image_is_clipped(write, tmp_path):
    split = box_data(write, tmp_path, (50, 30, 80, 70), (0, 1, 10, 10))
    assert split.samples[0].boxes.tolist() == [[49, 29, 60, 40], [0, 0, 10, 10]]
    assert split.report.counts == {
        "box beyond the image": 1
    }  # one pixel, from a tool that counts from 0, is none


def test_swapped_corners_are_put_in_order(write, tmp_path):
    split = box_data(write, tmp_path, (20, 5, 10, 15))
    assert split.samples[0].boxes.tolist() == [[9, 4, 20, 15]]
    assert split.report.counts == {"box with swapped corners": 1}


def test_empty_box_is_dropped_with_its_label(write, tmp_path):
    item = write.Item(
        "a.jpg", (60, 40), [("cat", 69, 4, 90, 15), ("owl", 4, 4, 9, 9), ("dog", 7, 45, 9, 50)]
    )
    split = load("voc", write.voc(tmp_path, [item]))
    assert split.samples[0].boxes.tolist() == [[4, 4, 9, 9]]
    assert [split.class_names[label] for label in split.samples[0].labels] == ["owl"]
    assert split.report.counts["box empty"] == 2


def test_repeated_box_is_dropped_but_not_of_another_class(write, tmp_path):
    corners = (3, 4, 9, 9)
    item = write.Item("a.jpg", (60, 40), [("cat", *corners), ("dog", *corners), ("cat", *corners)])
    split = load("voc", write.voc(tmp_path, [item]))
    assert split.samples[0].labels.tolist() == [0, 1]
    assert split.report.counts == {"box repeated": 1}


def test_image_listed_twice_counts_once(write, tmp_path):
    root = write.voc(tmp_path)
    (root / "ImageSets/Main/train.txt").write_text("a\nb\na\n")
    split = load("voc", root)
    assert [sample.path.stem for sample in split.samples] == ["a", "b"]
    assert split.report.counts == {"image listed twice": 1}


def test_identical_files_are_counted_and_leaks_found(write, tmp_path):
    root = write.voc(tmp_path)
    shutil.copy(root / "JPEGImages/a.jpg", root / "JPEGImages/b.jpg")
    split = load("voc", root)
    assert len(split.samples) == 3
    assert split.report.counts == {
        "image identical to another": 1,
        "size differs from annotation": 1,
    }
    a, b, c = split.samples
    assert find_leaks([a, c], [b]) == [(a.path, b.path)]
    assert find_leaks([a, c], [c]) == [(c.path, c.path)]
    assert find_leaks([a, b], [c]) == []


def test_same_size_and_tail_alone_are_not_identical(write, tmp_path):
    root = write.voc(tmp_path, [write.Item(name, (64, 64)) for name in ("a.bmp", "b.bmp")])
    for name, color in (("a", 0), ("b", 255)):
        pixels = np.zeros((64, 64, 3), np.uint8)
        pixels[-1, -1] = color  # BMP is stored bottom up: the files differ at their start only
        Image.fromarray(pixels).save(root / f"JPEGImages/{name}.bmp")
    split = load("voc", root, classes=["cat"])
    assert len(split.samples) == 2
    assert not split.report.counts


def test_missing_image_and_missing_or_broken_xml_are_left_out(write, tmp_path):
    root = write.voc(
        tmp_path, [write.Item(f"{name}.jpg", (20, 20), [("cat", 1, 1, 5, 5)]) for name in "abcdefg"]
    )
    (root / "JPEGImages/a.jpg").unlink()
    (root / "Annotations/b.xml").unlink()
    (root / "Annotations/c.xml").write_text("<annotation><object>")
    text = (root / "Annotations/d.xml").read_text()
    (root / "Annotations/d.xml").write_text(text.replace("<xmin>2</xmin>", "<xmin>two</xmin>"))
    (root / "Annotations/e.xml").write_text(text.replace("<name>cat</name>", ""))
    (root / "Annotations/f.xml").write_text(text.replace("<ymax>5</ymax>", ""))
    split = load("voc", root)
    assert [sample.path.stem for sample in split.samples] == ["g"]
    assert split.report.counts == {
        "image missing": 1,
        "annotation missing": 1,
        "annotation unreadable": 4,
    }
    assert str(root / "Annotations/c.xml") in "\n".join(split.report.lines())


def test_yolo_missing_label_is_an_empty_image_and_a_bad_line_drops_it(write, tmp_path):
    root = write.yolo(tmp_path)
    (root / "labels/train/a.txt").unlink()
    for line in (
        "0 0.5 0.5 0.1",
        "0 0.5 0.5 nan 0.1",
        "0 5 5 30 30",
        "x 0.5 0.5 0.1 0.1",
        "0 0.5 0.5 0.1 0.1 0.9",
    ):
        (root / "labels/train/b.txt").write_text("1 0.5 0.5 0.2 0.2\n" + line)
        split = load("yolo", root)
        assert [(sample.path.name, len(sample.boxes)) for sample in split.samples] == [
            ("a.jpg", 0),
            ("c.png", 0),
        ]
        assert split.report.counts == {"annotation missing": 1, "annotation unreadable": 1}
        [example] = split.report.examples["annotation unreadable"]
        assert example.startswith(f"{root / 'labels/train/b.txt'}:2: ")
        assert "expected" in example


def test_coco_unusable_rows(write, tmp_path):
    root = write.coco(tmp_path)
    path = root / "annotations/instances_train.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["image_id"] = 5
    content["annotations"][2]["bbox"] = None
    path.write_text(json.dumps(content))
    (root / "train/c.png").unlink()
    split = load("coco", root)
    assert [(sample.path.name, len(sample.boxes)) for sample in split.samples] == [("a.jpg", 1)]
    expected = {"annotation without an image": 1, "annotation unreadable": 1, "image missing": 1}
    assert split.report.counts == expected


@pytest.mark.parametrize("format", ["voc", "coco", "yolo"])
def test_suffix_in_another_case_is_found(format, write, tmp_path):
    root = getattr(write, format)(tmp_path)
    [path] = root.rglob("a.jpg")
    path.rename(path.with_suffix(".JPG"))
    split = load(format, root)
    assert "a.JPG" in [sample.path.name for sample in split.samples]
    assert len(split.samples) == 3
    assert not split.report.counts


@pytest.mark.parametrize("layout", ["voc", "coco", "yolo", "labelimg_voc"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_with_accents_in_either_form_are_found(layout, form, write, tmp_path):
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    item = write.Item(unicodedata.normalize(form, "käfer.jpg"), (40, 40), [("cat", 1, 1, 9, 9)])
    if layout == "labelimg_voc":
        (tmp_path / "train").mkdir()
        write.make_image(item.size).save(tmp_path / "train" / item.name)
        (tmp_path / "train" / item.name).with_suffix(".xml").write_text(write.xml(item))
    else:
        getattr(write, layout)(tmp_path, [item])
    [path] = tmp_path.rglob("*.jpg")
    path.rename(path.with_name(unicodedata.normalize(other, path.name)))
    split = load(layout.rpartition("_")[2], tmp_path)
    assert [len(sample.boxes) for sample in split.samples] == [1]
    assert not split.report.counts


def test_names_are_found_exactly_else_in_another_case_else_with_another_suffix(tmp_path):
    for name in ("a.jpg", "A.PNG", "b.jpg", "B.jpg", "c.d.JPEG", "notes.txt"):
        (tmp_path / name).touch()
    finder = FileFinder()
    expected = {
        "a.png": "A.PNG",
        "a": "a.jpg",
        "B.jpg": "B.jpg",
        "b.JPG": "B.jpg",
        "c.d": "c.d.JPEG",
        "C.D.png": "c.d.JPEG",
    }
    for name, file in expected.items():
        assert finder.find(tmp_path, name) == tmp_path / file
    assert finder.find(tmp_path, "notes") is None
    assert finder.find(tmp_path / "none", "a") is None


def test_size_of_the_image_wins_over_the_xml(write, tmp_path):
    root = write.voc(tmp_path, [write.Item("a.jpg", (30, 20), [("cat", 5, 5, 60, 15)])])
    text = write.xml(write.Item("a.jpg", (600, 400), [("cat", 5, 5, 60, 15)]))
    (root / "Annotations/a.xml").write_text(text)
    split = load("voc", root)
    assert (split.samples[0].width, split.samples[0].height) == (30, 20)
    assert split.samples[0].boxes.tolist() == [[5, 5, 30, 15]]
    assert split.report.counts == {"size differs from annotation": 1, "box beyond the image": 1}
