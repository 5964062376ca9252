"""Boxes and labels on images, legible from thumbnails to camera size, and grids of pictures.

Text is drawn with Pillow, because `cv2.putText` knows ASCII only. The font is DejaVu Sans (it comes with matplotlib);
for characters that it lacks, the first installed font that has them all; where there is none, they show as boxes.
"""

import colorsys
import math
import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

from nets.inference.detections import Detections
from nets.ops.boxes import intersection
from utils.core.errors import UserError, nearest
from utils.core.images import IMAGE_SUFFIXES, Letterbox

Color = tuple[int, int, int]
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
MIN_TEXT = 9  # pixels; below that antialiased DejaVu Sans can no longer be read
GRID_SIDE = 3840  # longest side of a grid of images, pixels


def draw_detections(image: np.ndarray, detections: Detections) -> np.ndarray:
    """Draw boxes with "name 0.87" labels; the best detection lies on top.

    Args:
        image: RGB uint8 `(h, w, 3)`; not modified.
        detections: boxes in pixels of `image`.

    Returns:
        RGB uint8 `(h, w, 3)`, a copy.
    """
    names = [_one_line(detections.names[int(label)]) for label in detections.labels]
    tails = [f" {score:.2f}" for score in detections.scores]
    return _draw(image, detections.boxes, detections.labels, names, tails, truth=False)


def draw_ground_truth(
    image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, names: Sequence[str]
) -> np.ndarray:
    """Draw ground truth: dashed boxes, white labels without a score below them, so that it reads beside `draw`.

    Args:
        image: RGB uint8 `(h, w, 3)`; not modified.
        boxes: `(n, 4)` x1 y1 x2 y2, pixels. labels: `(n,)`, index into `names`.

    Returns:
        RGB uint8 `(h, w, 3)`, a copy.
    """
    texts = [_one_line(names[int(label)]) for label in labels]
    return _draw(image, boxes, labels, texts, [""] * len(texts), truth=True)


def class_color(label: int) -> Color:
    """The RGB color of a class index, 0..255: hues a golden ratio apart, so that neighbors differ."""
    value = (0.98, 0.72)[label // 8 % 2]
    red, green, blue = colorsys.hsv_to_rgb(
        (0.02 + label * 0.618034) % 1, (0.85, 0.6)[label // 16 % 2], value
    )
    return round(red * 255), round(green * 255), round(blue * 255)


def image_grid(
    images: Sequence[np.ndarray], columns: int | None = None, gap: int | None = None
) -> np.ndarray:
    """Lay images out row by row, letterboxed to their median size; the whole is at most 3840 pixels high or wide.

    Args:
        images: RGB uint8 `(h, w, 3)` of any sizes, at least one.
        columns: images a row; none: about as many as rows. gap: white pixels between; none: 1 % of a cell.

    Returns:
        RGB uint8 `(H, W, 3)`.
    """
    if not images:
        raise ValueError("image_grid needs at least one image")
    columns = min(columns or math.ceil(math.sqrt(len(images))), len(images))
    rows = math.ceil(len(images) / columns)
    height, width = (int(np.median([image.shape[axis] for image in images])) for axis in (0, 1))
    shrink = min(1.0, GRID_SIDE / max(rows * height, columns * width))
    height, width = max(1, int(height * shrink)), max(1, int(width * shrink))
    space = max(2, round(0.01 * max(height, width))) if gap is None else gap
    canvas = np.full(
        (rows * (height + space) - space, columns * (width + space) - space, 3), 255, np.uint8
    )
    for index, image in enumerate(images):
        y, x = index // columns * (height + space), index % columns * (width + space)
        fitted = Letterbox((image.shape[0], image.shape[1]), (height, width)).apply(image)
        canvas[y : y + height, x : x + width] = fitted
    return canvas


def write_image(path: str | Path, rgb: np.ndarray) -> None:
    """Write an RGB uint8 `(h, w, 3)` image in the format of the suffix; missing folders are made.

    Raises:
        UserError: the suffix is none that can be written, or the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    try:
        done, data = (
            cv2.imencode(suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)) if suffix else (False, None)
        )
    except cv2.error:
        done, data = False, None
    if not done or data is None:
        hint = nearest(suffix, sorted(IMAGE_SUFFIXES))
        raise UserError(f"cannot write image {path}: no encoder for suffix '{suffix}'{hint}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        data.tofile(path)  # cv2.imwrite cannot open non-ASCII paths on Windows
    except OSError as error:
        raise UserError(f"cannot write image {path}: {error.strerror or error}") from None


def _draw(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    names: list[str],
    tails: list[str],
    truth: bool,
) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected an RGB uint8 image (h, w, 3), got {image.dtype} {image.shape}")
    canvas = np.array(image, order="C", copy=True)
    height, width = canvas.shape[:2]
    scale = math.sqrt(height * width)
    line = max(1, round(0.0035 * scale))
    size = _text_size(len(names), width, height)
    corners = _pixels(boxes, width, height)
    for box, label in zip(corners[::-1], labels[::-1], strict=True):
        _outline(canvas, box, class_color(int(label)), line, truth)
    stickers = [
        _sticker(*_fit(name, tail, size, width), class_color(int(label)), truth)[:height, :width]
        for name, tail, label in zip(names, tails, labels, strict=True)
    ]
    spots = _place(corners, stickers, width, height, truth)
    for (x, y), sticker in zip(spots[::-1], stickers[::-1], strict=True):
        canvas[y : y + sticker.shape[0], x : x + sticker.shape[1]] = sticker
    return canvas


def _text_size(count: int, width: int, height: int) -> int:
    """Text height in pixels; smaller where `count` labels of some ten letters would hide a fifth of the picture."""
    usual = 0.025 * math.sqrt(height * width)
    crowded = math.sqrt(0.2 * height * width / (8 * max(1, count)))
    return max(MIN_TEXT, round(min(usual, crowded, height / 4)))


def _pixels(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """xyxy -> int64 `(n, 4)` inside the image, the end exclusive, at least one pixel each way."""
    limit = np.array([width, height])
    corners = np.nan_to_num(np.asarray(boxes, np.float64).reshape(-1, 4))
    start = np.clip(np.floor(corners[:, :2]), 0, limit - 1)
    end = np.clip(np.ceil(corners[:, 2:]), start + 1, limit)
    return np.concatenate([start, end], axis=1).astype(np.int64)


def _outline(canvas: np.ndarray, box: np.ndarray, paint: Color, line: int, dashed: bool) -> None:
    """Paint the frame of a box, inside it; dashes are of the class's color and white, to show on any ground."""
    x1, y1, x2, y2 = (int(value) for value in box)
    line = min(line, max(1, min(x2 - x1, y2 - y1) // 4))
    dash = max(3, 4 * line)
    sides = (
        canvas[y1 : y1 + line, x1:x2],
        canvas[y2 - line : y2, x1:x2],
        canvas[y1:y2, x1 : x1 + line].swapaxes(0, 1),
        canvas[y1:y2, x2 - line : x2].swapaxes(0, 1),
    )
    for side in sides:
        side[:] = paint
        if dashed:
            side[:, np.arange(side.shape[1]) // dash % 2 == 1] = WHITE


def _place(
    boxes: np.ndarray, stickers: list[np.ndarray], width: int, height: int, truth: bool
) -> list[tuple[int, int]]:
    """Choose each label's top left corner, best first: off other labels, then off its own object, else above it."""
    placed = np.zeros((len(stickers), 4))
    for index, (box, sticker) in enumerate(zip(boxes, stickers, strict=True)):
        tall, wide = sticker.shape[:2]
        x1, y1, x2, y2 = box
        above, below = ((x1, y1 - tall), (x2 - wide, y1 - tall)), ((x1, y2), (x2 - wide, y2))
        inside = ((x1, y1), (x2 - wide, y1), (x1, y2 - tall), (x2 - wide, y2 - tall))
        beside = ((x2, y1), (x1 - wide, y1))
        order = below + inside[2:] + above + inside[:2] if truth else above + inside + below
        spots = np.clip(np.array(order + beside), 0, (width - wide, height - tall))
        areas = np.concatenate([spots, spots + (wide, tall)], axis=1)
        hidden = intersection(areas.T[:, :, None], placed[:index].T).sum(axis=1) / (wide * tall)
        covered = intersection(areas.T, box) / ((x2 - x1) * (y2 - y1))
        best = int(np.argmin(2 * hidden + covered + 0.01 * np.arange(len(spots))))
        placed[index] = areas[best]
    return [(int(x), int(y)) for x, y in placed[:, :2]]


def _one_line(name: str) -> str:
    return " ".join(str(name).split())


@lru_cache(maxsize=512)
def _fit(name: str, tail: str, size: int, room: int) -> tuple[str, str, int]:
    """(text, font, size) that fits `room` pixels: smaller, then without the score, then cut short."""
    path = _font_for(name)
    shorter = [f"{name[:end]}…" for end in range(len(name) - 1, 0, -1)]
    for text in (name + tail, name, *shorter):
        wide = _width(text, path, size)
        fitting = size if wide <= room else size * room // wide
        if fitting >= MIN_TEXT and _width(text, path, fitting) <= room:
            return text, path, fitting
    return name[:1], path, MIN_TEXT


def _width(text: str, path: str, size: int) -> int:
    """Width of the label with this text, pixels."""
    return math.ceil(_font(path, size).getlength(text)) + 2 * _padding(size)


def _padding(size: int) -> int:
    return max(1, size // 5)


@lru_cache(maxsize=128)
def _sticker(text: str, path: str, size: int, paint: Color, truth: bool) -> np.ndarray:
    """A label as an image: text on the class's color, or, for truth, dark text on white in a frame of it."""
    font = _font(path, size)
    ascent, descent = font.getmetrics()
    shape = _width(text, path, size), ascent + descent
    label = Image.new("RGB", shape, WHITE if truth else paint)
    pen = ImageDraw.Draw(label)
    pen.text((_padding(size), 0), text, font=font, fill=BLACK if truth else _ink(paint))
    if truth:
        pen.rectangle((0, 0, shape[0] - 1, shape[1] - 1), outline=paint, width=max(1, size // 12))
    return np.asarray(label)


def _ink(paint: Color) -> Color:
    """Black or white, whichever contrasts more (WCAG 2.1 relative luminance; both contrast equally at 0.179)."""
    linear = [
        value / 255 / 12.92 if value <= 10 else ((value / 255 + 0.055) / 1.055) ** 2.4
        for value in paint
    ]
    return BLACK if np.dot(linear, (0.2126, 0.7152, 0.0722)) > 0.179 else WHITE


@lru_cache(maxsize=64)
def _font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


@lru_cache(maxsize=1024)
def _font_for(name: str) -> str:
    """The file of the first font that has every character of the name, digits included (for the score)."""
    default = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
    needed = {ord(character) for character in name + "0123456789." if not character.isspace()}
    missing = needed - _characters(default)
    if not missing:
        return default
    for path in _installed():
        if needed <= _characters(path):
            return path
    characters = "".join(map(chr, sorted(missing)))
    warnings.warn(
        f"no installed font has '{characters}' of class '{name}': shown as boxes", stacklevel=2
    )
    return default


@lru_cache(maxsize=1)
def _installed() -> tuple[str, ...]:
    """Files of the installed fonts, upright, sans and regular first; none of the color or placeholder fonts."""
    from matplotlib import (
        font_manager,
    )  # looks through the machine's fonts, seconds at first: only when needed

    def rank(entry: font_manager.FontEntry) -> tuple[bool, bool, bool, str]:
        return (
            entry.style != "normal",
            "sans" not in entry.name.lower(),
            entry.weight not in (400, "normal"),
            entry.name,
        )

    fonts = sorted(font_manager.fontManager.ttflist, key=rank)
    skipped = ("emoji", "resort")
    return tuple(
        font.fname for font in fonts if not any(word in font.name.lower() for word in skipped)
    )


@lru_cache(maxsize=64)
def _characters(path: str) -> frozenset[int]:
    """Code points that a font file can draw; empty when it cannot be read."""
    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()
