"""Headers of image files: size, color mode, EXIF rotation."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import Image

from utils.core.errors import UserError
from utils.core.images import MAX_PIXELS, read_image
from utils.core.inputs import ReadError, is_outage, read_with
from utils.core.outputs import OverwriteError

ORIENTATION = 0x0112  # EXIF tag


@dataclass(frozen=True)
class Header:
    """Properties read from the header of an image file.

    Attributes:
        size: (width, height) of the upright image, in pixels; `None` if it cannot be decoded.
        rules: the keys of `utils.data.dataset_report.RULES` that apply.
        reason: why it cannot be decoded, with its name.
        file_size: size of the file, in bytes.
        modified: its modification time, in ns since 1970.
    """

    size: tuple[int, int] | None
    rules: tuple[str, ...] = ()
    reason: str = ""
    file_size: int = 0
    modified: int = 0


def read_header(path: Path) -> Header:
    """Read size, color mode and EXIF rotation; decode the image only if Pillow fails.

    Raises:
        ReadError: the storage is out of reach, which says nothing about the image.
        OverwriteError: it is also an output of this command.
    """
    try:
        properties, status = read_with(_read_properties, path)
        size = _upright_size(path, properties)
    except UserError as error:  # not a file, no permission, or no image
        if is_outage(error) or isinstance(error, OverwriteError):
            raise
        return Header(None, ("image undecodable",), str(error))
    return Header(size, properties.rules, "", status.st_size, status.st_mtime_ns)


class _Properties(NamedTuple):
    """What Pillow reads from a header; the defaults if it cannot."""

    size: tuple[int, int] = (0, 0)  # width, height
    file_format: str | None = None
    orientation: int = 1
    rules: tuple[str, ...] = ()


def _read_properties(file: BinaryIO) -> tuple[_Properties, os.stat_result]:
    status = os.fstat(file.fileno())
    try:
        with Image.open(file) as image:
            orientation = _orientation(image)
            rules = _color_rules(image)
            if orientation in range(2, 9):
                rules.insert(0, "image with EXIF rotation")
            return _Properties(image.size, image.format, orientation, tuple(rules)), status
    except Image.DecompressionBombError:
        raise ReadError(
            f"{file.name}: expected at most {MAX_PIXELS:,} pixels, claims more"
        ) from None
    except Exception as error:  # Pillow raises many kinds; OpenCV may still be able to decode it
        if is_outage(error):
            raise
        return _Properties(), status


def _upright_size(path: Path, header: _Properties) -> tuple[int, int]:
    """(width, height) after rotation; raises a UserError if the image cannot be decoded."""
    width, height = header.size
    rotated = header.orientation in range(2, 9)
    if width and height and not rotated:
        return width, height
    if rotated and header.file_format == "JPEG":
        return (height, width) if header.orientation >= 5 else (width, height)
    # outside JPEG, which rotations are applied depends on the decoder, so decode the image
    height, width = read_image(path).shape[:2]
    return width, height


def _color_rules(image: Image.Image) -> list[str]:
    """The keys of `utils.data.dataset_report.RULES` that apply to the color mode of an image."""
    rules = []
    if image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I"):
        rules.append("image in grayscale")
    if image.mode == "F" or image.mode.startswith("I"):
        rules.append("image with more than 8 bits")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rules.append("image with alpha channel")
    if image.mode == "CMYK":
        rules.append("image in CMYK")
    return rules


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8.

    `Image.getexif` would decode every PNG, and it honors XMP, which OpenCV ignores.
    """
    if image.format == "TIFF":
        return image.getexif().get(ORIENTATION, 1)
    exif = Image.Exif()
    exif.load(image.info.get("exif", b""))
    return exif.get(ORIENTATION, 1)
