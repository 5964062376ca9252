"""Boxes with labels on images, readable from thumbnails to camera size, and grids of images.

Text is drawn with Pillow, since `cv2.putText` only supports ASCII.
"""

import colorsys
import math
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw

from nets.inference.detections import Detections
from nets.inference.fonts import find_font, load_font
from nets.ops.boxes import intersection
from utils.core.images import Letterbox

Color = tuple[int, int, int]
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
MIN_FONT_SIZE = 9  # pixels; antialiased DejaVu Sans is unreadable below this
MAX_GRID_SIDE = 3840  # pixels


def draw_detections(image: np.ndarray, detections: Detections) -> np.ndarray:
    """Draw boxes with "name 0.87" labels, the best detection on top.

    Objects that are followed through a video have "name #3 0.87", and a color of their own.

    Args:
        image: RGB uint8 `(h, w, 3)`; not modified.
        detections: boxes in pixels of `image`.

    Returns:
        A copy, RGB uint8 `(h, w, 3)`.
    """
    names = [detections.names[int(label)] for label in detections.labels]
    suffixes = [f" {score:.2f}" for score in detections.scores]
    colors = detections.labels
    if detections.ids is not None:
        colors = np.where(detections.ids < 0, detections.labels, detections.ids)
        for index in np.flatnonzero(detections.ids >= 0):
            suffixes[index] = f" #{detections.ids[index]}{suffixes[index]}"
    return _draw(image, detections.boxes, colors, names, suffixes, ground_truth=False)


def draw_line(
    image: np.ndarray, start: tuple[int, int], end: tuple[int, int], text: str
) -> np.ndarray:
    """Draw a line with a label at its middle.

    Args:
        image: RGB uint8 `(h, w, 3)`; modified.
        start: (x, y) of one end, pixels.
        end: (x, y) of the other.
        text: the label.

    Returns:
        The image.
    """
    height, width = image.shape[:2]
    thickness = max(1, round(0.0035 * math.sqrt(height * width)))
    cv2.line(image, start, end, WHITE, 2 * thickness, cv2.LINE_AA)
    cv2.line(image, start, end, BLACK, thickness, cv2.LINE_AA)
    label, font, size = _fit_text(text, "", _font_size(1, width, height), width)
    tag = _render_tag(label, font, size, WHITE, False)[:height, :width]
    x = min(max(0, (start[0] + end[0] - tag.shape[1]) // 2), width - tag.shape[1])
    y = min(max(0, (start[1] + end[1] - tag.shape[0]) // 2), height - tag.shape[0])
    image[y : y + tag.shape[0], x : x + tag.shape[1]] = tag
    return image


def draw_ground_truth(
    image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, names: Sequence[str]
) -> np.ndarray:
    """Draw dashed boxes with white labels below them, to distinguish them from detections.

    Args:
        image: RGB uint8 `(h, w, 3)`; not modified.
        boxes: `(n, 4)` xyxy, pixels.
        labels: `(n,)`, class indices.
        names: class names.

    Returns:
        A copy, RGB uint8 `(h, w, 3)`.
    """
    own_names = [names[int(label)] for label in labels]
    return _draw(image, boxes, labels, own_names, [""] * len(own_names), ground_truth=True)


def class_color(label: int) -> Color:
    """The RGB color of a class index, 0 to 255; hues of neighbors are a golden ratio apart."""
    hue = (0.02 + label * 0.618034) % 1
    saturation = (0.85, 0.6)[label // 16 % 2]
    value = (0.98, 0.72)[label // 8 % 2]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def image_grid(
    images: Sequence[np.ndarray], columns: int | None = None, gap: int | None = None
) -> np.ndarray:
    """Arrange images row by row, letterboxed to their median size.

    Args:
        images: RGB uint8 `(h, w, 3)` of any sizes, at least one.
        columns: images per row; None: about as many as rows.
        gap: white pixels between images; None: 1 % of their longest side.

    Returns:
        RGB uint8 `(H, W, 3)`, sides up to about 3840.
    """
    if not images:
        raise ValueError("image_grid needs at least one image")
    columns = min(columns or math.ceil(math.sqrt(len(images))), len(images))
    rows = math.ceil(len(images) / columns)
    height = int(np.median([image.shape[0] for image in images]))
    width = int(np.median([image.shape[1] for image in images]))
    scale = min(1.0, MAX_GRID_SIDE / max(rows * height, columns * width))
    height, width = max(1, int(height * scale)), max(1, int(width * scale))
    if gap is None:
        gap = max(2, round(0.01 * max(height, width)))
    grid_size = rows * (height + gap) - gap, columns * (width + gap) - gap
    grid = np.full((*grid_size, 3), 255, np.uint8)
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        y, x = row * (height + gap), column * (width + gap)
        fitted = Letterbox((image.shape[0], image.shape[1]), (height, width)).apply(image)
        grid[y : y + height, x : x + width] = fitted
    return grid


def _draw(
    image: np.ndarray,
    boxes: np.ndarray,
    color_indices: np.ndarray,
    names: Sequence[str],
    suffixes: Sequence[str],
    ground_truth: bool,
) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected an RGB uint8 image (h, w, 3), got {image.dtype} {image.shape}")
    canvas = np.array(image, order="C", copy=True)
    height, width = canvas.shape[:2]
    line_width = max(1, round(0.0035 * math.sqrt(height * width)))
    font_size = _font_size(len(names), width, height)
    corners = pixel_boxes(boxes, width, height)
    colors = [class_color(int(index)) for index in color_indices]
    # from last to first, so that the best detection is on top
    for box, color in zip(corners[::-1], colors[::-1], strict=True):
        _draw_outline(canvas, box, color, line_width, dashed=ground_truth)
    tags = []
    for name, suffix, color in zip(names, suffixes, colors, strict=True):
        text, font, size = _fit_text(_one_line(name), suffix, font_size, width)
        tags.append(_render_tag(text, font, size, color, ground_truth)[:height, :width])
    positions = _place_tags(corners, tags, width, height, ground_truth)
    for (x, y), tag in zip(positions[::-1], tags[::-1], strict=True):
        canvas[y : y + tag.shape[0], x : x + tag.shape[1]] = tag
    return canvas


def _font_size(count: int, width: int, height: int) -> int:
    """Text height, pixels; smaller if `count` labels would hide more than 20 % of the image."""
    usual = 0.025 * math.sqrt(height * width)
    crowded = math.sqrt(0.2 * height * width / (8 * max(1, count)))
    return max(MIN_FONT_SIZE, round(min(usual, crowded, height / 4)))


def pixel_boxes(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """Xyxy -> int64 `(n, 4)` within the image, end exclusive, at least one pixel wide and high."""
    limit = np.array([width, height])
    corners = np.nan_to_num(np.asarray(boxes, np.float64).reshape(-1, 4))
    start = np.clip(np.floor(corners[:, :2]), 0, limit - 1)
    end = np.clip(np.ceil(corners[:, 2:]), start + 1, limit)
    return np.concatenate([start, end], axis=1).astype(np.int64)


def _draw_outline(
    canvas: np.ndarray, box: np.ndarray, color: Color, line_width: int, dashed: bool
) -> None:
    """Draw a box along the inside of its border; dashes alternate with white."""
    x1, y1, x2, y2 = (int(value) for value in box)
    line = min(line_width, max(1, min(x2 - x1, y2 - y1) // 4))
    dash = max(3, 4 * line)
    sides = (
        canvas[y1 : y1 + line, x1:x2],
        canvas[y2 - line : y2, x1:x2],
        canvas[y1:y2, x1 : x1 + line].swapaxes(0, 1),
        canvas[y1:y2, x2 - line : x2].swapaxes(0, 1),
    )
    for side in sides:
        side[:] = color
        if dashed:
            side[:, np.arange(side.shape[1]) // dash % 2 == 1] = WHITE


def _place_tags(
    boxes: np.ndarray, tags: Sequence[np.ndarray], width: int, height: int, ground_truth: bool
) -> list[tuple[int, int]]:
    """Choose the top-left corner (x, y) of each tag, best detection first.

    A tag should hide neither other tags nor its own object; failing that, its first candidate is
    used.
    """
    placed = np.zeros((len(tags), 4))
    for index, (box, tag) in enumerate(zip(boxes, tags, strict=True)):
        tag_height, tag_width = tag.shape[:2]
        candidates = np.array(_tag_candidates(box, tag_width, tag_height, ground_truth))
        candidates = np.clip(candidates, 0, (width - tag_width, height - tag_height))
        areas = np.concatenate([candidates, candidates + (tag_width, tag_height)], axis=1)
        tag_area = tag_width * tag_height
        box_area = (box[2] - box[0]) * (box[3] - box[1])
        hidden = intersection(areas.T[:, :, None], placed[:index].T).sum(axis=1) / tag_area
        covered = intersection(areas.T, box) / box_area
        best = int(np.argmin(2 * hidden + covered + 0.01 * np.arange(len(areas))))
        placed[index] = areas[best]
    return [(int(x), int(y)) for x, y in placed[:, :2]]


def _tag_candidates(
    box: np.ndarray, tag_width: int, tag_height: int, ground_truth: bool
) -> list[tuple[int, int]]:
    """Positions (x, y) at a box, in order of preference: above detections, below ground truth."""
    x1, y1, x2, y2 = box
    left, right = x1, x2 - tag_width
    above = [(left, y1 - tag_height), (right, y1 - tag_height)]
    below = [(left, y2), (right, y2)]
    inside_top = [(left, y1), (right, y1)]
    inside_bottom = [(left, y2 - tag_height), (right, y2 - tag_height)]
    beside = [(x2, y1), (x1 - tag_width, y1)]
    if ground_truth:
        return below + inside_bottom + above + inside_top + beside
    return above + inside_top + inside_bottom + below + beside


def _one_line(name: str) -> str:
    return " ".join(str(name).split())


@lru_cache(maxsize=512)
def _fit_text(name: str, suffix: str, size: int, max_width: int) -> tuple[str, str, int]:
    """(text, font file, font size) within `max_width`: smaller, then without suffix, then cut."""
    font = find_font(name)
    shortened = [f"{name[:end]}…" for end in range(len(name) - 1, 0, -1)]
    for text in (name + suffix, name, *shortened):
        width = _tag_width(text, font, size)
        fitting = size if width <= max_width else size * max_width // width
        if fitting >= MIN_FONT_SIZE and _tag_width(text, font, fitting) <= max_width:
            return text, font, fitting
    return name[:1], font, MIN_FONT_SIZE


def _tag_width(text: str, font: str, size: int) -> int:
    return math.ceil(load_font(font, size).getlength(text)) + 2 * _padding(size)


def _padding(size: int) -> int:
    return max(1, size // 5)


@lru_cache(maxsize=128)
def _render_tag(text: str, font: str, size: int, color: Color, ground_truth: bool) -> np.ndarray:
    """Text on the class's color; for ground truth, black text on white, framed in that color."""
    loaded = load_font(font, size)
    ascent, descent = loaded.getmetrics()
    width, height = _tag_width(text, font, size), ascent + descent
    tag = Image.new("RGB", (width, height), WHITE if ground_truth else color)
    pen = ImageDraw.Draw(tag)
    text_color = BLACK if ground_truth else _text_color(color)
    pen.text((_padding(size), 0), text, font=loaded, fill=text_color)
    if ground_truth:
        pen.rectangle((0, 0, width - 1, height - 1), outline=color, width=max(1, size // 12))
    return np.asarray(tag)


def _text_color(background: Color) -> Color:
    """Black or white, whichever contrasts more (WCAG 2.1: equal at a luminance of 0.179)."""
    linear = []
    for value in background:
        share = value / 255
        linear.append(share / 12.92 if value <= 10 else ((share + 0.055) / 1.055) ** 2.4)
    return BLACK if np.dot(linear, (0.2126, 0.7152, 0.0722)) > 0.179 else WHITE
