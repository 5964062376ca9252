"""Images in their formats and modes."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.dataset_files import make_image
from tests.robustness.kinds.kind import Kind
from utils.core.images import read_image
from utils.data.headers import read_header


def _load_image(path: Path) -> None:
    header = read_header(path)
    image = read_image(path)
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size
    assert header.size is not None


def _encoded(file_format: str, mode: str = "RGB", **options: Any) -> bytes:
    content = io.BytesIO()
    make_image((24, 16)).convert(mode).save(content, file_format, **options)
    return content.getvalue()


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation
    return exif


IMAGES: dict[str, Callable[[], tuple[bytes, ...]]] = {
    "jpeg": lambda: (
        _encoded("JPEG"),
        _encoded("JPEG", progressive=True, exif=_exif()),
        _encoded("JPEG", "CMYK"),
    ),
    "png": lambda: (
        _encoded("PNG"),
        _encoded("PNG", "P", exif=_exif()),
        _encoded("PNG", "RGBA"),
        _encoded("PNG", "LA"),
    ),
    "bmp": lambda: (_encoded("BMP"), _encoded("BMP", "P"), _encoded("BMP", "1")),
    "webp": lambda: (_encoded("WEBP"), _encoded("WEBP", lossless=True, exif=_exif())),
    "gif": lambda: (
        _encoded("GIF", "P"),
        _encoded("GIF", "P", save_all=True, append_images=[make_image((24, 16), 1)]),
    ),
    "tiff": lambda: (
        _encoded("TIFF"),
        _encoded("TIFF", compression="tiff_lzw", exif=_exif()),
        _encoded("TIFF", compression="tiff_adobe_deflate"),
    ),
    "ppm": lambda: (_encoded("PPM"), _encoded("PPM", "L")),
}


def _image(suffix: str) -> Callable[[Path], Kind]:
    def make(folder: Path) -> Kind:
        return Kind(folder / f"a.{suffix}", _load_image, IMAGES[suffix]())

    return make


KINDS = {suffix: _image(suffix) for suffix in IMAGES}
