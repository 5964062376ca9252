"""The built-in dataset: synthetic images of six shapes, so that nothing needs a download.

An image is determined by (`data.shapes_seed`, split, index) and can be drawn at any size. It has a
textured background, clutter that belongs to no object (strokes, irregular blobs), and 1 to 5 shapes
whose sizes span 5:1; they are slightly rotated, shaded, and partly covered by each other or cut by
the border. A shape is not placed if less than 60% of it would be visible, or if it would cover an
earlier shape to less than that. A box encloses exactly the visible pixels of its shape.
"""

import functools
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from utils.core.class_names import read_class_names
from utils.core.errors import UserError, nearest
from utils.core.schema import DataConfig
from utils.data.dataset_report import DatasetReport
from utils.data.readers.base import SplitContents, class_index
from utils.data.sample import Sample

NAMES = ("circle", "cross", "ring", "square", "star", "triangle")
DIAMETERS = (0.14, 0.65)  # smallest and largest, relative to the image's shorter side
MIN_VISIBLE = 0.6  # fraction of a shape that must be inside the image and not covered
SOLID = 0.5  # coverage from which a pixel belongs to a shape
MAX_ROTATION = 20.0  # degrees
SUPERSAMPLING = 4  # outlines are filled at this many times the resolution, for smooth edges
MAX_SHAPES = 5  # per image
ATTEMPTS = 8  # positions tried for a shape before it is given up

Color = tuple[float, float, float]  # RGB, 0..255


@dataclass(frozen=True)
class Shape:
    """One object.

    Attributes:
        label: index into `NAMES`.
        center: (x, y) in pixels.
        radius: radius of the circumscribed circle, in pixels.
        degrees: rotation.
        color: RGB, 0..255.
        shading: direction of the light, in radians.
    """

    label: int
    center: tuple[float, float]
    radius: float
    degrees: float
    color: Color
    shading: float


@dataclass(frozen=True)
class Drawing:
    """An image before it is rendered.

    Attributes:
        background: float32 RGB `(height, width, 3)`, 0..255.
        shapes: the objects in drawing order, the last on top.
        masks: coverage by each shape, float32 `(height, width)`, 0..1.
    """

    background: np.ndarray
    shapes: tuple[Shape, ...]
    masks: tuple[np.ndarray, ...]


def read(
    data: DataConfig,
    split: str,
    input_size: tuple[int, int],
    progress: bool = True,
    report: DatasetReport | None = None,
) -> SplitContents:
    """Describe the images of a split; they are drawn on demand.

    The split `data.train` has `data.shapes_train` images; `data.val` and `test` have
    `data.shapes_val`. With `data.classes`, labels are indices into these names, which must be those
    of the shapes. See `Reader` for arguments and errors.
    """
    known = [data.train, data.val, "test"]
    if split not in known:
        raise UserError(f"shapes: there is no split '{split}'{nearest(split, known)}")
    count = data.shapes_train if split == data.train else data.shapes_val
    report = report or DatasetReport()
    class_names = read_class_names(data.classes, report.note_encoding) or NAMES
    indices = np.array([class_index(name, class_names, "data.classes") for name in NAMES])
    samples = []
    for index in range(count):
        sample = _describe(data.shapes_seed, split, index, *input_size)
        samples.append(replace(sample, labels=indices[sample.labels]))
    return SplitContents(samples, class_names, report)


def _describe(seed: int, split: str, index: int, height: int, width: int) -> Sample:
    shapes, masks = place_shapes(seed, split, index, height, width)
    boxes = [_bounding_box(visible >= SOLID) for visible in visible_parts(masks)]
    return Sample(
        path=Path(f"shapes-{seed}-{split}-{index:05}-{width}x{height}.png"),
        width=width,
        height=height,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array([shape.label for shape in shapes], np.int64),
        difficult=np.zeros(len(shapes), np.bool_),
        crowd=np.zeros(len(shapes), np.bool_),
        draw=functools.partial(draw_image, seed, split, index, height, width),
    )


def draw_image(seed: int, split: str, index: int, height: int, width: int) -> np.ndarray:
    """Draw one image: RGB uint8 `(height, width, 3)`, the same in every process."""
    shapes, masks = place_shapes(seed, split, index, height, width)
    rng = _generator(seed, split, index, 1)
    return render(Drawing(_background(rng, height, width), shapes, masks), rng)


def render(drawing: Drawing, rng: np.random.Generator) -> np.ndarray:
    """Paint the shapes over the background and add sensor noise: RGB uint8 `(height, width, 3)`."""
    image = drawing.background.copy()
    for shape, mask in zip(drawing.shapes, drawing.masks, strict=True):
        x1, y1, x2, y2 = _bounding_box(mask > 0)
        ys, xs = np.mgrid[y1:y2, x1:x2].astype(np.float32)
        dx, dy = xs - shape.center[0], ys - shape.center[1]
        slope = dx * np.cos(shape.shading) + dy * np.sin(shape.shading)
        light = 1 + 0.18 * np.clip(slope / shape.radius, -1, 1)
        shaded = light[..., None] * np.array(shape.color, np.float32)
        patch = image[y1:y2, x1:x2]
        patch += mask[y1:y2, x1:x2, None] * (shaded - patch)
    image += rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(2, 7))
    return np.clip(image, 0, 255).round().astype(np.uint8)


def place_shapes(
    seed: int, split: str, index: int, height: int, width: int
) -> tuple[tuple[Shape, ...], tuple[np.ndarray, ...]]:
    """Choose the shapes of one image.

    Returns:
        The shapes in drawing order (the last is on top), and their coverages, float32
        `(height, width)`, 0..1.
    """
    rng = _generator(seed, split, index, 0)
    shapes: list[Shape] = []
    masks: list[np.ndarray] = []
    areas: list[float] = []
    for _ in range(rng.integers(1, MAX_SHAPES + 1)):
        label = int(rng.integers(len(NAMES)))
        diameter = np.exp(rng.uniform(*np.log(DIAMETERS))) * min(height, width)
        for _ in range(ATTEMPTS):
            shape = _random_shape(rng, label, diameter / 2, height, width)
            mask, area = coverage(shape, height, width)
            if _all_visible([*masks, mask], [*areas, area]):
                shapes.append(shape)
                masks.append(mask)
                areas.append(area)
                break
    return tuple(shapes), tuple(masks)


def _all_visible(masks: list[np.ndarray], areas: list[float]) -> bool:
    """Whether enough of every shape can be seen, drawn in this order."""
    parts = visible_parts(masks)
    shares = [part.sum() / area for part, area in zip(parts, areas, strict=True)]
    return min(shares) >= MIN_VISIBLE and all((part >= SOLID).any() for part in parts)


def visible_parts(masks: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The part of each coverage `(height, width)` that later ones leave visible."""
    parts: list[np.ndarray] = []
    uncovered = np.float32(1)
    for mask in reversed(masks):
        parts.append(mask * uncovered)
        uncovered = uncovered * (1 - mask)
    return parts[::-1]


def coverage(shape: Shape, height: int, width: int) -> tuple[np.ndarray, float]:
    """Draw the mask of a single shape.

    Returns:
        Antialiased coverage float32 `(height, width)`, 0..1; and the area of the whole shape in
        pixels, which includes what lies outside the image.
    """
    side = int(np.ceil(shape.radius)) + 2
    left, top = (int(np.floor(value)) - side for value in shape.center)
    size = 2 * side + 1
    fine = np.zeros((size * SUPERSAMPLING, size * SUPERSAMPLING), np.uint8)
    for outline, fill in outlines(shape):
        # cv2's coordinates start at pixel centers, ours at pixel edges
        points = (outline - (left, top)) * SUPERSAMPLING - 0.5
        cv2.fillPoly(fine, [_fixed_point(points)], fill, cv2.LINE_8, 4)
    patch = cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    mask = np.zeros((height, width), np.float32)
    x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + size, width), min(top + size, height)
    if x1 < x2 and y1 < y2:
        mask[y1:y2, x1:x2] = patch[y1 - top : y2 - top, x1 - left : x2 - left]
    return mask, float(patch.sum())


def outlines(shape: Shape) -> list[tuple[np.ndarray, int]]:
    """Polygons `(n, 2)` in image pixels, each with its fill: 255 inside, 0 for a hole."""
    angle = np.deg2rad(shape.degrees)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    center = np.array(shape.center)
    polygons = _unit_polygons(NAMES[shape.label])
    return [(points @ rotation.T * shape.radius + center, fill) for points, fill in polygons]


def _unit_polygons(name: str) -> list[tuple[np.ndarray, int]]:
    """Polygons of a shape in the unit circle, each with its fill."""
    if name == "circle":
        return [(_disc(), 255)]
    if name == "ring":
        return [(_disc(), 255), (_disc() * 0.55, 0)]
    if name == "cross":
        arm, end = 0.33, 0.944  # the corners are at distance 1
        corner = np.array([(arm, -end), (arm, -arm), (end, -arm)])
        quarter_turn = np.array([[0.0, -1.0], [1.0, 0.0]])
        turns = [np.linalg.matrix_power(quarter_turn, count) for count in range(4)]
        return [(np.concatenate([corner @ turn.T for turn in turns]), 255)]
    if name == "star":
        angles = np.arange(10) * np.pi / 5 - np.pi / 2
        return [(_polar(angles, np.where(np.arange(10) % 2, 0.42, 1.0)), 255)]
    corners = {"square": 4, "triangle": 3}[name]
    start = -np.pi / 2 + (np.pi / 4 if corners == 4 else 0)
    return [(_polar(np.arange(corners) * 2 * np.pi / corners + start, 1.0), 255)]


def _disc() -> np.ndarray:
    return _polar(np.linspace(0, 2 * np.pi, 72, endpoint=False), 1.0)


def _polar(angles: np.ndarray, radii: np.ndarray | float) -> np.ndarray:
    return np.stack([np.cos(angles), np.sin(angles)], 1) * np.reshape(radii, (-1, 1))


def _random_shape(
    rng: np.random.Generator, label: int, radius: float, height: int, width: int
) -> Shape:
    # the order of the arguments is the order of the random draws
    return Shape(
        label=label,
        center=(
            float(rng.uniform(0.5 * radius, width - 0.5 * radius)),
            float(rng.uniform(0.5 * radius, height - 0.5 * radius)),
        ),
        radius=float(radius),
        degrees=float(rng.uniform(-MAX_ROTATION, MAX_ROTATION)),
        color=_vivid_color(rng),
        shading=float(rng.uniform(0, 2 * np.pi)),
    )


def _vivid_color(rng: np.random.Generator) -> Color:
    """A strong color, light or dark; the background is pale and of medium brightness."""
    return _rgb(rng.uniform(0, 360), rng.uniform(0.75, 1.0), rng.uniform(0.5, 1.0))


def _clutter_color(rng: np.random.Generator) -> Color:
    return _rgb(rng.uniform(0, 360), rng.uniform(0.05, 0.5), rng.uniform(0.25, 0.95))


def _rgb(hue: float, saturation: float, value: float) -> Color:
    """Hue 0..360, saturation and value 0..1 -> RGB 0..255."""
    hsv = np.array([[[hue, saturation, value]]], np.float32)
    red, green, blue = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0] * 255
    return float(red), float(green), float(blue)


def _background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Pale clouds of two tints, with clutter: float32 RGB `(height, width, 3)`, 0..255."""
    hue = rng.uniform(0, 360)
    tints = []
    for offset in (0, 70):
        color = _rgb((hue + offset) % 360, rng.uniform(0.05, 0.3), rng.uniform(0.4, 0.95))
        tints.append(np.array(color))
    clouds = np.zeros((height, width), np.float32)
    for bumps, weight in ((3, 0.6), (9, 0.25), (40, 0.15)):
        clouds += weight * _noise(rng, bumps, height, width)
    image = (tints[0] + clouds[..., None] * (tints[1] - tints[0])).astype(np.float32)
    scale = min(height, width)
    for _ in range(rng.integers(2, 7)):
        _paint_stroke(rng, image, scale)
    for _ in range(rng.integers(1, 5)):
        _paint_blob(rng, image, scale)
    return image


def _noise(rng: np.random.Generator, bumps: int, height: int, width: int) -> np.ndarray:
    """Smooth random field float32 `(height, width)`, 0..1, with `bumps` bumps per side."""
    grid = rng.uniform(0, 1, (bumps, bumps)).astype(np.float32)
    return np.clip(cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)


def _paint_stroke(rng: np.random.Generator, image: np.ndarray, scale: int) -> None:
    """Paint a thin curved line, in place."""
    height, width = image.shape[:2]
    points = rng.uniform(-0.1, 1.1, (3, 2)) * (width, height)
    t = np.linspace(0, 1, 40)[:, None]
    curve = (1 - t) ** 2 * points[0] + 2 * t * (1 - t) * points[1] + t**2 * points[2]
    thickness = max(1, round(rng.uniform(0.004, 0.016) * scale))

    def draw(mask: np.ndarray) -> np.ndarray:
        return cv2.polylines(mask, [_fixed_point(curve)], False, 255, thickness, cv2.LINE_AA, 4)

    _paint(image, _clutter_color(rng), draw)


def _paint_blob(rng: np.random.Generator, image: np.ndarray, scale: int) -> None:
    """Paint an irregular, long patch, in place."""
    height, width = image.shape[:2]
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    waves = np.zeros(len(angles))
    for frequency in (2, 3, 5):
        amplitude = rng.uniform(0.04, 0.15)
        waves += amplitude * np.cos(frequency * angles + rng.uniform(0, 2 * np.pi))
    radius = rng.uniform(0.03, 0.11) * scale
    outline = _polar(angles, radius * (1 + waves)) * (1, rng.uniform(0.35, 0.6))
    angle = rng.uniform(0, np.pi)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    outline = outline @ rotation + rng.uniform(0, 1, 2) * (width, height)

    def draw(mask: np.ndarray) -> np.ndarray:
        return cv2.fillPoly(mask, [_fixed_point(outline)], 255, cv2.LINE_AA, 4)

    _paint(image, _clutter_color(rng), draw)


def _fixed_point(points: np.ndarray) -> np.ndarray:
    """Points in cv2's fixed-point form with 4 fractional bits."""
    return np.round(points * 16).astype(np.int32)


def _paint(image: np.ndarray, color: Color, draw: Callable[[np.ndarray], np.ndarray]) -> None:
    """Color, in place, the pixels that `draw` sets in an empty mask."""
    mask = draw(np.zeros(image.shape[:2], np.uint8))
    if mask.any():
        x1, y1, x2, y2 = _bounding_box(mask > 0)
        patch = image[y1:y2, x1:x2]
        opacity = mask[y1:y2, x1:x2, None] / np.float32(255)
        patch += opacity * (np.array(color, np.float32) - patch)


def _generator(seed: int, split: str, index: int, stream: int) -> np.random.Generator:
    return np.random.default_rng([seed & 0xFFFFFFFF, zlib.crc32(split.encode()), index, stream])


def _bounding_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """xyxy edges of the pixels that are set in a bool `(height, width)`."""
    xs, ys = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1
