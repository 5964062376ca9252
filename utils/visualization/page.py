"""HTML pages in one file, which need no network: templates, and images inside the text."""

import base64
from dataclasses import dataclass
from pathlib import Path

import cv2
import jinja2
import numpy as np

TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class EmbeddedImage:
    """An image inside the HTML file; `source` is a data URL."""

    source: str
    alt: str
    caption: str


def embed_png(data: bytes, alt: str, caption: str) -> EmbeddedImage:
    """A PNG file."""
    return EmbeddedImage(_data_url(data, "png"), alt, caption)


def embed_photo(rgb: np.ndarray, alt: str, caption: str) -> EmbeddedImage:
    """An RGB uint8 image `(h, w, 3)`, as JPEG."""
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()
    return EmbeddedImage(_data_url(data, "jpeg"), alt, caption)


def _data_url(data: bytes, image_format: str) -> str:
    return f"data:image/{image_format};base64,{base64.b64encode(data).decode()}"


def template_environment(*folders: Path, autoescape: bool = True) -> jinja2.Environment:
    """Templates of some folders, which may extend `page.html`.

    Args:
        *folders: the folders, searched in this order; some may be missing.
        autoescape: escape values, as HTML needs it.
    """
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, TEMPLATES]),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
