"""Decoding of every kind of image file, and the letterbox."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from utils.core.errors import UserError
from utils.core.images import (
    PAD_VALUE,
    FileState,
    Letterbox,
    _is_truncated_jpeg,
    decode_image,
    read_image,
    write_image,
)


@pytest.fixture
def rgb() -> Image.Image:
    grid = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(grid).resize((160, 120), Image.Resampling.BICUBIC)


def encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


MODES = {
    "RGB": "PNG JPEG BMP WEBP TIFF",
    "L": "JPEG PPM",
    "CMYK": "JPEG TIFF",
    "RGBA": "PNG",
    "LA": "PNG",
    "P": "PNG GIF",
}


@pytest.mark.parametrize(
    ("mode", "kind"), [(mode, kind) for mode, kinds in MODES.items() for kind in kinds.split()]
)
def test_every_mode_becomes_rgb(mode, kind, rgb, tmp_path):
    original = rgb.convert(mode)
    path = tmp_path / "bild ä.x"  # neither the suffix nor the name matters
    path.write_bytes(encode(original, kind, quality=98))
    image, state = decode_image(path.read_bytes(), path)
    assert state == FileState.WHOLE
    assert image.shape == (120, 160, 3)
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - np.asarray(original.convert("RGB"))).mean() < 3


def test_sixteen_bits_keep_the_high_byte(rgb, tmp_path):
    gray = np.asarray(rgb.convert("L"))
    for kind in ("PNG", "TIFF"):
        (tmp_path / "a").write_bytes(encode(Image.fromarray(gray.astype(np.uint16) * 257), kind))
        np.testing.assert_allclose(
            read_image(tmp_path / "a").astype(int), np.repeat(gray[..., None], 3, 2), atol=1
        )


def test_alpha_is_dropped_not_blended(rgb, tmp_path):
    rgb.putalpha(0)
    (tmp_path / "a").write_bytes(encode(rgb, "PNG"))
    np.testing.assert_array_equal(read_image(tmp_path / "a"), np.asarray(rgb)[..., :3])


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_rotation(turn, rgb, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = turn
    data = encode(rgb, "JPEG", exif=exif, quality=98)
    (tmp_path / "a.jpg").write_bytes(data)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    image = read_image(tmp_path / "a.jpg")
    assert image.shape == upright.shape
    np.testing.assert_allclose(image.astype(int), upright, atol=3)


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
@pytest.mark.parametrize("share", [0.35, 0.7, 0.99])
def test_truncated_jpeg_keeps_what_can_be_decoded(options, share, rgb, tmp_path):
    data = encode(rgb, "JPEG", quality=95, **options)
    (tmp_path / "a.jpg").write_bytes(data[: int(len(data) * share)])
    image, state = decode_image((tmp_path / "a.jpg").read_bytes(), "a.jpg")
    assert state == FileState.TRUNCATED
    assert image.shape == (120, 160, 3)
    good = np.abs(image.astype(int) - np.asarray(rgb)).max(2) < 40
    assert good.mean() > share - 0.15
    if not options and share < 0.9:
        assert (image[-8:, -8:] == 128).all()


def test_end_marker_in_the_header_does_not_hide_a_truncation(rgb):
    data = encode(rgb, "JPEG", quality=95, comment=b"\xff\xd9")  # as in a thumbnail
    assert data.find(b"\xff\xd9") < data.find(b"\xff\xda")
    for part, cut in (
        (data, False),
        (data + b"trailer", False),
        (data + b"ftypmp42" + b"\xff\xda" + b"a video", False),
        (data[: len(data) // 2] + b"\xff\xda" + b"a video", True),
        (data[: len(data) // 2], True),
        (data[:-2], True),
    ):
        assert _is_truncated_jpeg(part) is cut
    assert not _is_truncated_jpeg(encode(rgb, "PNG"))
    for options in ({"progressive": True}, {"restart_marker_blocks": 1}):
        assert not _is_truncated_jpeg(encode(rgb, "JPEG", **options) + b"\xff\xda")


def test_a_png_chunk_that_claims_gigabytes_never_reaches_opencv(rgb, monkeypatch):
    """OpenCV would allocate and clear them."""
    content = bytearray(encode(rgb, "PNG"))
    assert decode_image(content, "a.png")[1] == FileState.WHOLE
    content[33] = 255  # of the length of the first chunk after the header
    monkeypatch.setattr("cv2.imdecode", lambda *args: pytest.fail("OpenCV got it"))
    assert np.array_equal(decode_image(content, "a.png")[0], np.asarray(rgb))


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_truncated_png_and_bmp(kind, rgb, tmp_path):
    data = encode(rgb, kind)
    (tmp_path / "a").write_bytes(data[: len(data) * 2 // 3])
    image, state = decode_image((tmp_path / "a").read_bytes(), "a")
    assert state == FileState.TRUNCATED
    assert 0.5 < (image == np.asarray(rgb)).all(2).mean() < 0.8
    assert not ImageFile.LOAD_TRUNCATED_IMAGES  # Pillow's switch is restored


@pytest.mark.parametrize("data", [b"", b"no image", b"\xff\xd8", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_undecodable_files_are_named_in_one_line(data, tmp_path):
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(UserError, match=r"cannot decode image .*a\.jpg") as caught:
        read_image(tmp_path / "a.jpg")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"cannot read image .*nothing\.jpg: no such file"):
        read_image(tmp_path / "nothing.jpg")


@pytest.mark.parametrize("source", [(50, 100), (100, 50), (64, 96), (7, 300), (1, 1), (1000, 3)])
def test_letterbox_maps_boxes_back_and_forth(source, rgb):
    height, width = source
    letterbox = Letterbox(source, (64, 96))
    canvas = letterbox.apply(np.full((height, width, 3), 7, np.uint8))
    inside = letterbox.boxes_to_input(np.array([[0, 0, width, height]], np.float32))[0]
    x1, y1, x2, y2 = inside.astype(int)
    assert canvas.shape == (64, 96, 3)
    assert (canvas[y1:y2, x1:x2] == 7).all()
    assert (canvas == 7).all(2).sum() == (x2 - x1) * (y2 - y1)
    assert set(np.unique(canvas)) <= {7, PAD_VALUE}
    boxes = np.array(
        [[0, 0, width, height], [0.25 * width, 0.5 * height, 0.75 * width, height]], np.float32
    )
    np.testing.assert_allclose(
        letterbox.boxes_to_original(letterbox.boxes_to_input(boxes)), boxes, atol=1e-2
    )


@pytest.mark.parametrize("name", ["größe.png", "upper.PNG", "new/folder/x.bmp"])
def test_written_image_reads_back(tmp_path: Path, name):
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    write_image(tmp_path / name, image)
    assert (read_image(tmp_path / name) == image).all()


@pytest.mark.parametrize("name", ["x.pgn", "x", "x.txt"])
def test_unknown_suffix_is_one_line(tmp_path: Path, name):
    with pytest.raises(UserError, match="no encoder") as caught:
        write_image(tmp_path / name, np.zeros((4, 4, 3), np.uint8))
    assert "\n" not in str(caught.value)
    assert name != "x.pgn" or "'.png'" in str(caught.value)


def test_a_path_that_cannot_be_written_is_a_user_error(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write .*x\.png"):
        write_image(tmp_path / "file" / "x.png", np.zeros((4, 4, 3), np.uint8))
