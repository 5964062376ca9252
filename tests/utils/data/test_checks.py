"""Every kind of dirty data, by a file that has it: what remains of it, and that it is counted."""

import errno
import json
import os
import shutil
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.utils.data.read_results import load
from utils.core.images import read_image
from utils.core.inputs import ReadError
from utils.data.checks import RULES, DatasetReport, read_header
from utils.data.dataset import DetectionDataset
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


@pytest.mark.parametrize("turn", range(2, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_header_and_decoder_agree_on_rotated_images(turn, suffix, write, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = turn
    path = tmp_path / f"a.{suffix}"
    write.make_image((60, 40)).save(path, exif=exif)
    header = read_header(path)
    assert header.size == read_image(path).shape[1::-1]
    assert "image with EXIF rotation" in header.rules
    if suffix == "jpg":
        assert header.size == ((40, 60) if turn >= 5 else (60, 40))


def test_exif_rotation_boxes_refer_to_the_upright_image(write, tmp_path):
    root = write.voc(tmp_path, [write.Item("a.jpg", (40, 60), [("cat", 30, 50, 40, 60)])])
    exif = Image.Exif()
    exif[0x0112] = 6
    write.make_image((60, 40)).save(root / "JPEGImages/a.jpg", exif=exif)
    split = load("voc", root)
    assert (split.samples[0].width, split.samples[0].height) == (40, 60)
    assert split.samples[0].boxes.tolist() == [[30, 50, 40, 60]]
    assert split.report.counts == {"image with EXIF rotation": 1}


@pytest.mark.parametrize(
    ("mode", "suffix", "note"),
    [
        ("L", "jpg", "image in grayscale"),
        ("1", "png", "image in grayscale"),
        ("I;16", "png", "image in grayscale"),
        ("RGBA", "png", "image with alpha channel"),
        ("LA", "png", "image with alpha channel"),
        ("CMYK", "jpg", "image in CMYK"),
        ("P", "png", None),
    ],
)
def test_color_modes_are_counted_and_become_rgb(mode, suffix, note, write, tmp_path):
    root = write.voc(tmp_path, [write.Item(f"a.{suffix}", (60, 40))])
    rgb = write.make_image((60, 40))
    gray16 = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    (gray16 if mode == "I;16" else rgb.convert(mode)).save(root / f"JPEGImages/a.{suffix}")
    split = load("voc", root, classes=["cat"])
    assert split.report.counts[note] == 1 if note else not split.report.counts
    canvas = DetectionDataset(split.samples, (40, 60)).canvases([0])[0]
    truth = rgb.convert("L" if mode in ("L", "I;16", "LA") else mode).convert("RGB")
    assert np.abs(canvas.astype(int) - np.asarray(truth)).mean() < 3


def test_undecodable_image_is_left_out(write, tmp_path):
    root = write.voc(tmp_path)
    (root / "JPEGImages/a.jpg").write_bytes(b"no image at all")
    (root / "JPEGImages/b.jpg").write_bytes(b"")
    split = load("voc", root, classes=list(write.names))
    assert [sample.path.stem for sample in split.samples] == ["c"]
    assert split.report.counts == {"image undecodable": 2}


def claim_size(png, side: int) -> None:
    """Overwrite width and height in the header of a PNG."""
    data = png.read_bytes()
    header = b"IHDR" + side.to_bytes(4, "big") * 2 + data[24:29]
    png.write_bytes(data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:])


def test_an_image_that_is_no_readable_file_is_left_out_with_the_reason(write, tmp_path):
    root = write.voc(tmp_path, [write.Item(f"{name}.jpg", (20, 20)) for name in "abcdef"])
    images = root / "JPEGImages"
    for name in "abcde":
        (images / f"{name}.jpg").unlink()
    os.mkfifo(images / "a.jpg")
    (images / "b.jpg").mkdir()
    (images / "c.jpg").symlink_to("nowhere")
    (images / "d.jpg").symlink_to("d.jpg")
    write.make_image((20, 20)).save(images / "e.jpg", "PNG")
    claim_size(images / "e.jpg", 60_000)
    reasons = {
        "a": "is a FIFO",
        "b": "is a folder",
        "c": "leads nowhere",
        "d": "symbolic links",
        "e": "claims more",
    }
    for name, reason in reasons.items():
        assert reason in read_header(images / f"{name}.jpg").reason
    split = load("voc", root, classes=["cat"])
    assert [sample.path.stem for sample in split.samples] == ["f"]
    assert split.report.counts == {"image undecodable": 5}
    assert "a.jpg: is a FIFO" in "\n".join(split.report.lines())


def test_an_outage_is_not_blamed_on_the_image(write, tmp_path, monkeypatch):
    root = write.voc(tmp_path)

    def out_of_reach(*_):
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr("utils.core.inputs.RETRY_SECONDS", 0)
    monkeypatch.setattr("utils.data.checks.Image.open", out_of_reach)
    with pytest.raises(ReadError, match=r"a\.jpg: input/output error"):
        load("voc", root)


def test_size_and_time_of_the_file_are_those_when_it_was_checked(write, tmp_path):
    path = write.voc(tmp_path) / "JPEGImages/a.jpg"
    os.utime(path, ns=(5, 123_456_789_000))
    sample = load("voc", tmp_path).samples[0]
    assert (sample.file_size, sample.modified) == (path.stat().st_size, 123_456_789_000)


def test_report_keeps_few_examples_and_states_the_rule():
    report = DatasetReport()
    for index in range(10):
        report.note("box empty", f"file{index}", 2)
    [_, line] = report.lines()
    assert "20 x box empty" in line
    assert RULES["box empty"] in line
    assert report.examples["box empty"] == ["file0", "file1", "file2"]
    report.note("box empty", "x", 0)
    assert report.counts["box empty"] == 20
    with pytest.raises(KeyError):
        report.note("no such rule", "x")


def test_checking_does_not_decode(write, tmp_path, monkeypatch):
    root = write.voc(tmp_path)

    def forbidden(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr("utils.data.checks.read_image", forbidden)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", forbidden)
    assert len(load("voc", root).samples) == 3
