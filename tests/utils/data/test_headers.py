"""Image files whose headers say something else, or that are no images."""

import errno
import os
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.utils.data.read_results import load
from utils.core.images import read_image
from utils.core.inputs import ReadError
from utils.data.dataset import DetectionDataset
from utils.data.headers import read_header


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


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_values_beyond_eight_bits_are_counted(dtype, write, tmp_path):
    """12 bits of 16, or floats up to 1, become nearly black."""
    root = write.voc(tmp_path, [write.Item("a.tif", (60, 40))])
    Image.fromarray(np.ones((40, 60), dtype)).save(root / "JPEGImages/a.tif")
    counts = load("voc", root, classes=["cat"]).report.counts
    assert counts == {"image in grayscale": 1, "image with more than 8 bits": 1}


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
    monkeypatch.setattr("utils.data.headers.Image.open", out_of_reach)
    with pytest.raises(ReadError, match=r"a\.jpg: input/output error"):
        load("voc", root)


def test_size_and_time_of_the_file_are_those_when_it_was_checked(write, tmp_path):
    path = write.voc(tmp_path) / "JPEGImages/a.jpg"
    os.utime(path, ns=(5, 123_456_789_000))
    sample = load("voc", tmp_path).samples[0]
    assert (sample.file_size, sample.modified) == (path.stat().st_size, 123_456_789_000)


def test_checking_does_not_decode(write, tmp_path, monkeypatch):
    root = write.voc(tmp_path)

    def forbidden(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr("utils.data.headers.read_image", forbidden)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", forbidden)
    assert len(load("voc", root).samples) == 3
