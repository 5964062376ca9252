"""Heatmaps over images, in the coordinates of the original image, and sheets of panels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from nets.inference.detections import Detections
from nets.inference.drawing import draw_detections
from utils.core.images import Letterbox
from utils.visualization.figures import PLOT_STYLE, chosen_fonts

STRENGTH = 0.6  # weight of the color in an overlay; the rest is the gray image
PANEL = 3.1  # width of a panel, inches
PANEL_HEIGHT = (1.9, 4.6)
DPI = 130
SIDE = 440  # longest side of images in a sheet, pixels: as in a panel, so that labels stay readable
FLAT = 1e-6  # a map that differs by less, relative to its size, is shown as one color


@dataclass(frozen=True)
class HeatPanel:
    """A heatmap over the image.

    Attributes:
        title: title of the panel.
        values: `(h, w)`, covers the network's input.
        colors: name of a matplotlib colormap.
        marked: whether to show the chosen point as a star.
        note: shown below the image.
    """

    title: str
    values: np.ndarray
    colors: str = "viridis"
    marked: bool = False
    note: str = ""


@dataclass(frozen=True)
class BarPanel:
    """One bar per channel; `values` is `(C,)`."""

    title: str
    values: np.ndarray


@dataclass(frozen=True)
class BranchPanel:
    """One bar per branch, the mean over its channels, with their 5 to 95% range.

    `values` is `(branches, C)`.
    """

    title: str
    values: np.ndarray


@dataclass(frozen=True)
class PointPanel:
    """Points over the image; `values` is `(points, 2)`, x and y over the input, 0 to 1."""

    title: str
    values: np.ndarray


@dataclass(frozen=True)
class TextPanel:
    """A sentence in place of a plot."""

    title: str
    text: str


Panel = HeatPanel | BarPanel | BranchPanel | PointPanel | TextPanel


@dataclass(frozen=True)
class PanelRow:
    """The panels of one site."""

    label: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class AnnotatedImage:
    """The image that the panels belong to.

    Attributes:
        image: RGB uint8 `(h, w, 3)`.
        detections: boxes to draw.
        letterbox: how the image was fitted to the network's input.
        point: (x, y) of the star, pixels of the image.
    """

    image: np.ndarray
    detections: Detections
    letterbox: Letterbox
    point: tuple[float, float]


def map_to_image(
    heat: np.ndarray, letterbox: Letterbox, size: tuple[int, int] | None = None
) -> np.ndarray:
    """Resample a map over the network's input to the image, without the padding.

    Bilinear between the centers of the map's cells.

    Args:
        heat: `(h, w)`, covers the network's input.
        letterbox: how the image was fitted to the input.
        size: (height, width) of the result; None: that of the image.

    Returns:
        float32 `size`.
    """
    source_height, source_width = letterbox.original_size
    height, width = size or letterbox.original_size
    columns = (np.arange(width) + 0.5) * source_width / width
    rows = (np.arange(height) + 0.5) * source_height / height
    x = _to_input(letterbox, columns, 0) * heat.shape[1] / letterbox.input_size[1] - 0.5
    y = _to_input(letterbox, rows, 1) * heat.shape[0] / letterbox.input_size[0] - 0.5
    grid_x, grid_y = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    return cv2.remap(
        heat.astype(np.float32), grid_x, grid_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def _to_input(letterbox: Letterbox, values: np.ndarray, axis: int) -> np.ndarray:
    """Image coordinates along an axis (0: x, 1: y) -> input pixels."""
    boxes = np.zeros((len(values), 4), np.float32)
    boxes[:, axis] = values
    return letterbox.boxes_to_input(boxes)[:, axis]


def share_on_padding(heat: np.ndarray, letterbox: Letterbox) -> float:
    """The share of a map, 0 to 1, that lies on the padding of the network's input.

    Args:
        heat: `(h, w)`, covers the network's input.
        letterbox: how the image was fitted to the input.
    """
    left, top, right, bottom = letterbox.content
    rows = _covered(heat.shape[0], top, bottom, letterbox.input_size[0])
    columns = _covered(heat.shape[1], left, right, letterbox.input_size[1])
    sizes = np.abs(heat)
    outside = sizes * (1 - rows[:, None] * columns)
    return float(outside.sum() / max(sizes.sum(), 1e-12))


def _covered(cells: int, low: float, high: float, side: int) -> np.ndarray:
    """How much of each cell along an axis of `side` pixels lies from `low` to `high`, 0 to 1."""
    edges = np.clip(np.linspace(0, side, cells + 1), low, high)
    return np.diff(edges) * cells / side


def overlay(image: np.ndarray, heat: np.ndarray, colors: str = "viridis") -> np.ndarray:
    """Blend a heatmap with the gray image; the colors span the range of the heatmap.

    Args:
        image: RGB uint8 `(h, w, 3)`; not modified.
        heat: float `(h, w)`.
        colors: name of a matplotlib colormap.

    Returns:
        RGB uint8 `(h, w, 3)`.
    """
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
    painted = matplotlib.colormaps[colors](_range(heat)(heat))[..., :3] * 255
    return np.clip((1 - STRENGTH) * gray + STRENGTH * painted + 0.5, 0, 255).astype(np.uint8)


def _range(values: np.ndarray) -> Normalize:
    """The range of the values, widened if they are equal up to rounding noise."""
    low, high = float(values.min()), float(values.max())
    if high - low <= FLAT * max(abs(low), abs(high), 1e-12):
        low, high = low - 0.5 * max(abs(low), 1e-3), high + 0.5 * max(abs(high), 1e-3)
    return Normalize(low, high)


def draw_sheet(scene: AnnotatedImage, rows: Sequence[PanelRow], title: str) -> np.ndarray:
    """Draw all panels: one row per site, with the annotated image on the left.

    Returns:
        RGB uint8 `(H, W, 3)`.
    """
    scene = _shrunk(scene)
    columns = 1 + max(len(row.panels) for row in rows)
    aspect = scene.image.shape[0] / scene.image.shape[1]
    height = float(np.clip(PANEL * aspect, *PANEL_HEIGHT)) + 0.45
    with matplotlib.rc_context({**PLOT_STYLE, "font.size": 8, "axes.titlesize": 8.5}):
        figure = Figure(
            figsize=(columns * PANEL, len(rows) * height + 0.4), dpi=DPI, layout="constrained"
        )
        figure.suptitle(title, fontsize=10)
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for axes_row, row in zip(grid, rows, strict=True):
            _show(axes_row[0], draw_detections(scene.image, scene.detections))
            _star(axes_row[0], scene.point)
            axes_row[0].set_ylabel(row.label, fontsize=9)
            for axes, panel in zip(axes_row[1:], row.panels, strict=False):
                _draw(figure, axes, panel, scene)
            for axes in axes_row[1 + len(row.panels) :]:
                axes.set_axis_off()
        canvas = FigureCanvasAgg(figure)
        with chosen_fonts(figure):
            canvas.draw()
        return np.array(canvas.buffer_rgba())[..., :3].copy()


def _shrunk(scene: AnnotatedImage) -> AnnotatedImage:
    """Shrink the image to what a panel can show; the letterbox fits any size, so it is kept."""
    height, width = scene.image.shape[:2]
    scale = SIDE / max(height, width)
    if scale >= 1:
        return scene
    size = max(1, round(width * scale)), max(1, round(height * scale))
    factor = np.array([size[0] / width, size[1] / height], np.float32)
    detections = replace(
        scene.detections,
        boxes=scene.detections.boxes * np.tile(factor, 2),
        width=size[0],
        height=size[1],
    )
    image = cv2.resize(scene.image, size, interpolation=cv2.INTER_AREA)
    return AnnotatedImage(
        image, detections, scene.letterbox, (scene.point[0] * factor[0], scene.point[1] * factor[1])
    )


def _show(axes: Axes, image: np.ndarray) -> None:
    axes.imshow(image, interpolation="antialiased")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _star(axes: Axes, point: tuple[float, float]) -> None:
    x, y = point[0] - 0.5, point[1] - 0.5  # imshow puts the center of the first pixel at 0
    axes.plot([x], [y], "*", markersize=12, markerfacecolor="white", markeredgecolor="black")


def _draw(figure: Figure, axes: Axes, panel: Panel, scene: AnnotatedImage) -> None:
    axes.set_title(panel.title)
    axes.set_box_aspect(scene.image.shape[0] / scene.image.shape[1])
    if isinstance(panel, HeatPanel):
        _heat(figure, axes, panel, scene)
    elif isinstance(panel, PointPanel):
        _points(axes, panel.values, scene)
    elif isinstance(panel, BarPanel):
        _channels(axes, panel.values)
    elif isinstance(panel, BranchPanel):
        _shares(axes, panel.values)
    else:
        axes.set_axis_off()
        axes.text(
            0.5,
            0.5,
            panel.text,
            ha="center",
            va="center",
            color="0.35",
            transform=axes.transAxes,
            wrap=True,
        )


def _heat(figure: Figure, axes: Axes, panel: HeatPanel, scene: AnnotatedImage) -> None:
    heat = map_to_image(panel.values, scene.letterbox, (scene.image.shape[0], scene.image.shape[1]))
    _show(axes, overlay(scene.image, heat, panel.colors))
    axes.set_xlabel(panel.note)
    if panel.marked:
        _star(axes, scene.point)
    scale = axes.inset_axes((1.02, 0.0, 0.04, 1.0))  # as tall as the image, whatever its shape
    bar = figure.colorbar(ScalarMappable(_range(heat), panel.colors), cax=scale)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)


def _points(axes: Axes, values: np.ndarray, scene: AnnotatedImage) -> None:
    height, width = scene.image.shape[:2]
    left, top, right, bottom = scene.letterbox.content
    at = values * scene.letterbox.input_size[::-1] - (left, top)
    points = at * (width / (right - left), height / (bottom - top)) - 0.5
    _show(axes, cv2.cvtColor(cv2.cvtColor(scene.image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB))
    axes.plot(*points.T, ".", markersize=3, color=matplotlib.colormaps["viridis"](0.95))
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def _channels(axes: Axes, values: np.ndarray) -> None:
    limits = _range(values)
    colors = matplotlib.colormaps["viridis"](limits(values))
    left, zero = np.arange(len(values)) - 0.5, np.zeros(len(values))
    corners = [(left, zero), (left, values), (left + 1, values), (left + 1, zero)]
    bars = np.stack(
        [np.stack(corner, 1) for corner in corners], 1
    )  # (C, 4, 2): one artist, since hundreds are slow to draw
    axes.add_collection(
        PolyCollection(list(bars), facecolors=colors, linewidth=0, antialiased=False)
    )
    axes.set_ylim(min(0.0, 1.05 * values.min()), max(0.0, 1.05 * values.max()) or 1.0)
    axes.axhline(values.mean(), color="black", linewidth=0.8, linestyle="--")
    low, high = np.percentile(values, (5, 95))
    axes.set_xlabel(f"channel    mean {values.mean():.3f}, 5 to 95%: {low:.3f} to {high:.3f}")
    axes.set_xlim(-0.5, len(values) - 0.5)
    axes.spines[["top", "right"]].set_visible(False)


def _shares(axes: Axes, values: np.ndarray) -> None:
    means = values.mean(1)
    low, high = np.percentile(values, (5, 95), axis=1)
    error = np.clip(np.stack([means - low, high - means]), 0, None)
    positions = np.arange(1, len(means) + 1)
    axes.bar(positions, means, color=matplotlib.colormaps["viridis"](0.45), width=0.6)
    axes.errorbar(positions, means, yerr=error, fmt="none", ecolor="black", elinewidth=1, capsize=4)
    axes.set(
        xticks=positions,
        xlabel=f"branch    mean of {values.shape[1]} channels, lines: 5 to 95%",
        ylim=(0, None),
    )
    axes.spines[["top", "right"]].set_visible(False)
