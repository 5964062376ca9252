"""The embedded dataset: drawn images of six shapes, so that everything runs without a download.

Every image follows from (`data.shapes_seed`, split, index) alone and can be drawn at any size. An image has a
textured background, clutter that is no object (strokes, irregular blobs), and 1 to 5 shapes: sizes 5:1, turned a
little, shaded, partly covered by each other or cut by the border. A shape of which less than 60% would be visible is
not placed, nor one that would push an earlier shape below that. A box hugs the pixels of its shape that are visible.
"""

import functools
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from utils.core.errors import UserError, nearest
from utils.core.schema import DataConfig
from utils.data.checks import Report
from utils.data.sample import Sample

NAMES = ("circle", "cross", "ring", "square", "star", "triangle")
SIZE = (256, 256)  # height, width where the caller asks for no other
DIAMETER = (0.14, 0.65)  # smallest and largest, share of the image's shorter side
VISIBLE = 0.6  # least share of a shape that is inside the image and not covered
SOLID = 0.5  # a pixel belongs to a shape from this coverage on
TURN = 20.0  # largest turn, degrees
FINE = 4  # outlines are filled at this many times the resolution, for smooth edges
MOST = 5  # shapes in an image
ATTEMPTS = 8  # places tried for a shape before it is given up


@dataclass(frozen=True)
class Shape:
    """One object: place and size in pixels, color as RGB 0..255."""

    label: int
    center: tuple[float, float]
    radius: float
    degrees: float
    color: tuple[float, float, float]
    shade: float  # direction of the shading, radians


@dataclass(frozen=True)
class Scene:
    """An image before it is drawn. `masks` are the shapes' coverages float32 `(h, w)` 0..1, in drawing order."""

    background: np.ndarray
    shapes: tuple[Shape, ...]
    masks: tuple[np.ndarray, ...]


def read(
    data: DataConfig, split: str, size: tuple[int, int] = SIZE
) -> tuple[list[Sample], tuple[str, ...], Report]:
    """Records of a split at `size` (height, width): `shapes_train` images in `data.train`, `shapes_val` in others.

    Returns:
        records, class list, report.

    Raises:
        UserError: a split that is neither of the configuration's two nor `test`.
    """
    known = [data.train, data.val, "test"]
    if split not in known:
        raise UserError(f"shapes: there is no split '{split}'{nearest(split, known)}")
    count = data.shapes_train if split == data.train else data.shapes_val
    return (
        [_record(data.shapes_seed, split, index, *size) for index in range(count)],
        NAMES,
        Report(),
    )


def _record(seed: int, split: str, index: int, height: int, width: int) -> Sample:
    shapes, masks = place_shapes(seed, split, index, height, width)
    return Sample(
        path=Path(f"shapes-{seed}-{split}-{index:05}-{width}x{height}.png"),
        width=width,
        height=height,
        boxes=np.array(
            [_frame(part >= SOLID) for part in visible_parts(masks)], np.float32
        ).reshape(-1, 4),
        labels=np.array([shape.label for shape in shapes], np.int64),
        difficult=np.zeros(len(shapes), np.bool_),
        crowd=np.zeros(len(shapes), np.bool_),
        draw=functools.partial(draw_image, seed, split, index, height, width),
    )


def draw_image(seed: int, split: str, index: int, height: int, width: int) -> np.ndarray:
    """Draw one image: RGB uint8 `(height, width, 3)`, the same in every process."""
    shapes, masks = place_shapes(seed, split, index, height, width)
    rng = _generator(seed, split, index, 1)
    return render(Scene(_background(rng, height, width), shapes, masks), rng)


def render(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Paint the shapes over the background and add sensor noise: RGB uint8 `(h, w, 3)`."""
    picture = scene.background.copy()
    for shape, mask in zip(scene.shapes, scene.masks, strict=True):
        x1, y1, x2, y2 = _frame(mask > 0)
        ys, xs = np.mgrid[y1:y2, x1:x2].astype(np.float32)
        slope = (xs - shape.center[0]) * np.cos(shape.shade) + (ys - shape.center[1]) * np.sin(
            shape.shade
        )
        light = 1 + 0.18 * np.clip(slope / shape.radius, -1, 1)
        part = picture[y1:y2, x1:x2]
        part += mask[y1:y2, x1:x2, None] * (
            light[..., None] * np.array(shape.color, np.float32) - part
        )
    picture += rng.standard_normal(picture.shape, np.float32) * np.float32(rng.uniform(2, 7))
    return np.clip(picture, 0, 255).round().astype(np.uint8)


def place_shapes(
    seed: int, split: str, index: int, height: int, width: int
) -> tuple[tuple[Shape, ...], tuple[np.ndarray, ...]]:
    """The shapes of one image and their coverages `(height, width)`, in drawing order (the last is on top)."""
    rng = _generator(seed, split, index, 0)
    shapes: list[Shape] = []
    masks: list[np.ndarray] = []
    areas: list[float] = []
    for _ in range(rng.integers(1, MOST + 1)):
        label = int(rng.integers(len(NAMES)))
        diameter = np.exp(rng.uniform(*np.log(DIAMETER))) * min(height, width)
        for _ in range(ATTEMPTS):
            shape = _random_shape(rng, label, diameter / 2, height, width)
            mask, area = coverage(shape, height, width)
            parts = visible_parts([*masks, mask])
            shares = [part.sum() / whole for part, whole in zip(parts, [*areas, area], strict=True)]
            if min(shares) >= VISIBLE and all((part >= SOLID).any() for part in parts):
                shapes.append(shape)
                masks.append(mask)
                areas.append(area)
                break
    return tuple(shapes), tuple(masks)


def visible_parts(masks: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What of each coverage `(h, w)` the later ones leave to see."""
    parts: list[np.ndarray] = []
    free = np.float32(1)
    for mask in reversed(masks):
        parts.append(mask * free)
        free = free * (1 - mask)
    return parts[::-1]


def coverage(shape: Shape, height: int, width: int) -> tuple[np.ndarray, float]:
    """Antialiased coverage float32 `(height, width)` 0..1 of a shape alone, and its whole area in pixels.

    The area counts what lies outside the image too.
    """
    side = int(np.ceil(shape.radius)) + 2
    left, top = (int(np.floor(value)) - side for value in shape.center)
    size = 2 * side + 1
    fine = np.zeros((size * FINE, size * FINE), np.uint8)
    for outline, value in outlines(shape):
        points = (
            outline - (left, top)
        ) * FINE - 0.5  # cv2 counts pixel centers, we count pixel edges
        cv2.fillPoly(fine, [np.round(points * 16).astype(np.int32)], value, cv2.LINE_8, 4)
    patch = cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    mask = np.zeros((height, width), np.float32)
    x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + size, width), min(top + size, height)
    if x1 < x2 and y1 < y2:
        mask[y1:y2, x1:x2] = patch[y1 - top : y2 - top, x1 - left : x2 - left]
    return mask, float(patch.sum())


def outlines(shape: Shape) -> list[tuple[np.ndarray, int]]:
    """Polygons `(n, 2)` in image pixels with their fill: 255 inside, 0 for a hole."""
    name = NAMES[shape.label]
    if name in ("circle", "ring"):
        disc = _polar(np.linspace(0, 2 * np.pi, 72, endpoint=False), 1.0)
        rings = [(disc, 255)] if name == "circle" else [(disc, 255), (disc * 0.55, 0)]
    elif name == "cross":
        arm, end = 0.33, 0.944  # corners at distance 1
        corner = [(arm, -end), (arm, -arm), (end, -arm)]
        quarter = np.array([[0.0, -1.0], [1.0, 0.0]])
        turns = [np.linalg.matrix_power(quarter, count) for count in range(4)]
        rings = [(np.concatenate([np.array(corner) @ turn.T for turn in turns]), 255)]
    elif name == "star":
        rings = [
            (
                _polar(
                    np.arange(10) * np.pi / 5 - np.pi / 2, np.where(np.arange(10) % 2, 0.42, 1.0)
                ),
                255,
            )
        ]
    else:
        corners = {"square": 4, "triangle": 3}[name]
        start = -np.pi / 2 + (np.pi / 4 if corners == 4 else 0)
        rings = [(_polar(np.arange(corners) * 2 * np.pi / corners + start, 1.0), 255)]
    angle = np.deg2rad(shape.degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return [(ring @ turn.T * shape.radius + np.array(shape.center), fill) for ring, fill in rings]


def _polar(angles: np.ndarray, radii: np.ndarray | float) -> np.ndarray:
    return np.stack([np.cos(angles), np.sin(angles)], 1) * np.reshape(radii, (-1, 1))


def _random_shape(
    rng: np.random.Generator, label: int, radius: float, height: int, width: int
) -> Shape:
    x, y = (float(rng.uniform(0.5 * radius, side - 0.5 * radius)) for side in (width, height))
    degrees = float(rng.uniform(-TURN, TURN))
    return Shape(
        label, (x, y), float(radius), degrees, _vivid(rng), float(rng.uniform(0, 2 * np.pi))
    )


def _vivid(rng: np.random.Generator) -> tuple[float, float, float]:
    """A strong color, light or dark: the background keeps to the pale middle."""
    return _rgb(rng.uniform(0, 360), rng.uniform(0.75, 1.0), rng.uniform(0.5, 1.0))


def _rgb(hue: float, saturation: float, value: float) -> tuple[float, float, float]:
    """hue 0..360, saturation and value 0..1 -> RGB 0..255."""
    red, green, blue = (
        cv2.cvtColor(np.array([[[hue, saturation, value]]], np.float32), cv2.COLOR_HSV2RGB)[0, 0]
        * 255
    )
    return float(red), float(green), float(blue)


def _background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Pale clouds of two tints, with clutter; float32 RGB `(height, width, 3)` 0..255."""
    hue = rng.uniform(0, 360)
    tints = [
        np.array(_rgb((hue + turn) % 360, rng.uniform(0.05, 0.3), rng.uniform(0.4, 0.95)))
        for turn in (0, 70)
    ]
    clouds = sum(
        weight * _noise(rng, cells, height, width)
        for cells, weight in ((3, 0.6), (9, 0.25), (40, 0.15))
    )
    picture = (tints[0] + np.asarray(clouds)[..., None] * (tints[1] - tints[0])).astype(np.float32)
    scale = min(height, width)
    for _ in range(rng.integers(2, 7)):
        _stroke(rng, picture, scale)
    for _ in range(rng.integers(1, 5)):
        _blob(rng, picture, scale)
    return picture


def _noise(rng: np.random.Generator, cells: int, height: int, width: int) -> np.ndarray:
    """Smooth random field 0..1 with `cells` bumps a side."""
    grid = rng.uniform(0, 1, (cells, cells)).astype(np.float32)
    return np.clip(cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)


def _clutter_color(rng: np.random.Generator) -> tuple[float, float, float]:
    return _rgb(rng.uniform(0, 360), rng.uniform(0.05, 0.5), rng.uniform(0.25, 0.95))


def _stroke(rng: np.random.Generator, picture: np.ndarray, scale: int) -> None:
    """A thin bent line, painted in place."""
    height, width = picture.shape[:2]
    ends = rng.uniform(-0.1, 1.1, (3, 2)) * (width, height)
    t = np.linspace(0, 1, 40)[:, None]
    curve = (1 - t) ** 2 * ends[0] + 2 * t * (1 - t) * ends[1] + t**2 * ends[2]
    thick = max(1, round(rng.uniform(0.004, 0.016) * scale))
    _paint(
        picture,
        _clutter_color(rng),
        lambda mask: cv2.polylines(mask, [_fixed(curve)], False, 255, thick, 16, 4),
    )


def _blob(rng: np.random.Generator, picture: np.ndarray, scale: int) -> None:
    """An irregular, long patch, painted in place."""
    height, width = picture.shape[:2]
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    waves = sum(
        rng.uniform(0.04, 0.15) * np.cos(k * angles + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 5)
    )
    radius = rng.uniform(0.03, 0.11) * scale
    ring = _polar(angles, radius * (1 + np.asarray(waves))) * (1, rng.uniform(0.35, 0.6))
    turn = rng.uniform(0, np.pi)
    ring = ring @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    ring += rng.uniform(0, 1, 2) * (width, height)
    _paint(
        picture, _clutter_color(rng), lambda mask: cv2.fillPoly(mask, [_fixed(ring)], 255, 16, 4)
    )


def _fixed(points: np.ndarray) -> np.ndarray:
    """Points in cv2's fixed-point form with 4 fractional bits."""
    return np.round(points * 16).astype(np.int32)


def _paint(
    picture: np.ndarray, color: tuple[float, float, float], fill: Callable[[np.ndarray], np.ndarray]
) -> None:
    """Color in place what `fill` draws on an empty mask."""
    mask = fill(np.zeros(picture.shape[:2], np.uint8))
    if mask.any():
        x1, y1, x2, y2 = _frame(mask > 0)
        part = picture[y1:y2, x1:x2]
        part += mask[y1:y2, x1:x2, None] / np.float32(255) * (np.array(color, np.float32) - part)


def _generator(seed: int, split: str, index: int, stream: int) -> np.random.Generator:
    return np.random.default_rng([seed & 0xFFFFFFFF, zlib.crc32(split.encode()), index, stream])


def _frame(solid: np.ndarray) -> tuple[int, int, int, int]:
    """xyxy edges of the pixels that are set in a bool `(h, w)`."""
    xs, ys = np.flatnonzero(solid.any(0)), np.flatnonzero(solid.any(1))
    return int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1
