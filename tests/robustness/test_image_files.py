"""Damaged and unusual image files, among good ones: `predict.py --mode dir` does the others."""

import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dataset_files import make_image
from PIL import Image

SIZE = (48, 32)
SKIPPED = None


def encoded(kind: str, mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    make_image(SIZE).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def cut(kind: str, share: float = 0.6, **options: object) -> bytes:
    data = encoded(kind, **options)
    return data[: int(len(data) * share)]


def png(width: int, height: int, content: bytes = b"", good: bool = True) -> bytes:
    """A PNG whose header claims a size, whatever its content is."""
    chunks = [b"\x89PNG\r\n\x1a\n"]
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(content)), (b"IEND", b"")):
        checksum = zlib.crc32(kind + data) ^ (not good)
        chunks.append(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum))
    return b"".join(chunks)


def jpeg_that_claims(width: int, height: int) -> bytes:
    data = bytearray(encoded("JPEG"))
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def exif(turn: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = turn
    return encoded("JPEG", exif=tags)


def sixteen_bits() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(48 * 32, dtype=np.uint16).reshape(32, 48) * 40).save(buffer, "PNG")
    return buffer.getvalue()


def animation() -> bytes:
    buffer = io.BytesIO()
    frames = [make_image(SIZE, seed) for seed in range(3)]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


PNG, JPEG = encoded("PNG"), encoded("JPEG")
TRUNCATED = {
    "cut.png",
    "cut interlaced.png",
    "cut.jpg",
    "cut progressive.jpg",
    "cut.bmp",
    "cut.gif",
    "without end.jpg",
    "zeros at the end.jpg",
    "wrong checksum.png",
}
# name -> (content, size by which it is reported; SKIPPED: it is told and left out)
FILES: dict[str, tuple[bytes, tuple[int, int] | None]] = {
    "empty.png": (b"", SKIPPED),
    "zeros.png": (bytes(5000), SKIPPED),
    "text.jpg": (b"not an image", SKIPPED),
    "error page.jpg": (b"<!DOCTYPE html><html><body>404</body></html>", SKIPPED),
    "vector.png": (b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", SKIPPED),
    "pdf.png": (b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj", SKIPPED),
    "pointer of lfs.png": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", SKIPPED),
    "start only.png": (PNG[:8], SKIPPED),
    "start only.jpg": (JPEG[:2], SKIPPED),
    "header only.png": (PNG[:33], SKIPPED),
    "header only.jpg": (JPEG[:100], SKIPPED),
    "cut.png": (cut("PNG"), SIZE),
    "cut interlaced.png": (cut("PNG", 0.8), SIZE),
    "cut.jpg": (cut("JPEG", 0.9), SIZE),
    "cut progressive.jpg": (cut("JPEG", 0.9, progressive=True), SIZE),
    "cut.bmp": (cut("BMP"), SIZE),
    "cut.gif": (cut("GIF", 0.9), SIZE),
    "without end.png": (PNG[:-12], SIZE),
    "without end.jpg": (JPEG[:-2], SIZE),
    "more at the end.png": (PNG + b"more" * 100, SIZE),
    "more at the end.jpg": (JPEG + b"more" * 100, SIZE),
    "zeros at the end.jpg": (JPEG[:-100] + bytes(100), SIZE),
    "wrong checksum.png": (flipped(PNG, len(PNG) - 20), SIZE),
    "wrong checksum of the header.png": (png(48, 32, good=False), SKIPPED),
    "bomb.png": (png(60_000, 60_000), SKIPPED),
    "bomb beyond 2**31.png": (png(2**31 - 1, 2**31 - 1), SKIPPED),
    "bomb.jpg": (jpeg_that_claims(65_500, 65_500), SKIPPED),
    "size 0.png": (png(0, 32), SKIPPED),
    "size 0.jpg": (jpeg_that_claims(0, 32), SKIPPED),
    "one pixel.png": (png(1, 1, b"\0abc"), (1, 1)),
    "one row.png": (png(3000, 1, bytes(9001)), (3000, 1)),
    "one column.png": (png(1, 3000, bytes(4 * 3000)), (1, 3000)),
    "gray.jpg": (encoded("JPEG", "L"), SIZE),
    "gray with alpha.png": (encoded("PNG", "LA"), SIZE),
    "two colors.png": (encoded("PNG", "1"), SIZE),
    "palette.png": (encoded("PNG", "P", transparency=0), SIZE),
    "cmyk.jpg": (encoded("JPEG", "CMYK"), SIZE),
    "cmyk.tif": (encoded("TIFF", "CMYK"), SIZE),
    "16 bits.png": (sixteen_bits(), SIZE),
    "floats.tif": (encoded("TIFF", "F"), SIZE),
    "animation.gif": (animation(), SIZE),
    "turned by 90.jpg": (exif(6), SIZE[::-1]),
    "turned by 180.jpg": (exif(3), SIZE),
    "turn 9.jpg": (exif(9), SIZE),
    "broken exif.jpg": (encoded("JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"), SIZE),
    "broken profile.png": (encoded("PNG", icc_profile=b"no profile"), SIZE),
    "png in a.jpg": (PNG, SIZE),
    "jpeg in a.png": (JPEG, SIZE),
    "webp in a.bmp": (encoded("WEBP"), SIZE),
}


@pytest.fixture
def predicted(run: Callable, weights: Path) -> Callable[[], tuple[dict, str]]:
    """Predict on ./in; entry of each image that was done, and what was printed to stderr."""

    def predict() -> tuple[dict, str]:
        words = ("--mode", "dir", "--source", "in", "--out", "out", "--json", "list.json")
        ended = run("predict", "--weights", weights, *words)
        assert ended.code == 0, ended.errors
        entries = {entry["image"]: entry for entry in json.loads(Path("list.json").read_text())}
        assert {"a.png", "z.png"} <= entries.keys()
        assert len(list(Path("out").iterdir())) == len(entries)
        return entries, ended.errors

    Path("in").mkdir()
    for name in ("in/a.png", "in/z.png"):
        Path(name).write_bytes(PNG)
    return predict


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_one_image_among_good_ones(name: str, run: Callable, predicted: Callable):
    content, size = FILES[name]
    (Path("in") / name).write_bytes(content)
    entries, errors = predicted()
    if size is SKIPPED:
        assert name not in entries
        assert errors.startswith(f"skipped {name}: cannot decode image in/{name}: ")
        assert len(errors.splitlines()) == 1
    else:
        note = f"note: in/{name}: image truncated: the intact part is used\n"
        assert errors == (note if name in TRUNCATED else "")
        assert (entries[name]["width"], entries[name]["height"]) == size


KINDS: dict[str, tuple[Callable[[Path], object], str | None]] = {
    "folder": (lambda path: path.mkdir(), None),
    "FIFO": (os.mkfifo, "is a FIFO, expected a file"),
    "dangling link": (lambda path: path.symlink_to("nowhere"), "the link leads nowhere"),
    "loop of links": (lambda path: path.symlink_to(path.name), "symbolic links"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "is a device, expected a file"),
    "link to a folder": (lambda path: path.symlink_to("/"), None),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_a_file_is_told_and_left_out(kind: str, run: Callable, predicted: Callable):
    make, words = KINDS[kind]
    make(Path("in/m.png"))
    entries, errors = predicted()
    assert entries.keys() == {"a.png", "z.png"}
    if words is None:
        assert errors == ""
    else:
        assert errors.startswith("skipped m.png: ") and words in errors
        assert len(errors.splitlines()) == 1


@pytest.mark.slow
def test_images_of_one_name_keep_their_results(run: Callable, weights: Path):
    for folder in ("one", "two"):
        Path(folder).mkdir()
        Path(folder, "a.png").write_bytes(PNG)
    sources = ("one/a.png", "two/a.png", "one/a.png")
    ended = run("predict", "--weights", weights, "--source", *sources, "--out", "out")
    assert ended.code == 0
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "a-2.png",
        "a-3.png",
        "a.png",
    ]
