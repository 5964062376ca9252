"""Plots of results: precision-recall curves, confusion matrix, training curves."""

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from utils.core.outputs import write_file
from utils.metrics import RECALLS, ClassMetrics, Metrics
from utils.visualization.figures import PLOT_STYLE, short_name, to_png

LEGEND_ROWS = 20  # with more classes, only the best and worst are named
EXTREMES = 8
CELL_TEXT = 24  # up to this many rows, the cells of the confusion matrix show their counts
MAX_TICKS = 100
DPI = 130


def _save(figure: Figure, path: str | Path) -> None:
    write_file(path, to_png(figure, DPI))


def plot_pr_curves(metrics: Metrics, path: str | Path) -> None:
    """Write the interpolated precision-recall curves at IoU 0.5, one per class, and their mean.

    A single class has no mean, classes without objects have no curve. With more than 20 classes,
    only the eight best and the eight worst are named and colored; the others are gray.
    """
    present = {name: item for name, item in metrics.per_class.items() if not math.isnan(item.ap50)}
    ranked = sorted(present.items(), key=lambda entry: -entry[1].ap50)
    with matplotlib.rc_context(PLOT_STYLE):
        figure = Figure(figsize=(8.6, 5.2), layout="constrained")
        axes = figure.add_subplot()
        _curves(axes, ranked)
        if len(ranked) > 1:  # the mean of a single class would hide its curve
            mean = np.mean([item.precision for _, item in ranked], axis=0)
            label = f"{metrics.map50:.3f}  mean"
            axes.plot(RECALLS, mean, color="black", linewidth=2.5, label=label, zorder=4)
        if ranked:
            _legend(axes, mean_first=len(ranked) > 1)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="Recall", ylabel="Precision (interpolated)")
        axes.set_title(f"Precision and recall at IoU 0.5, {metrics.images} images")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        _save(figure, path)


def _legend(axes: Axes, mean_first: bool) -> None:
    """Name the curves beside the axes; the mean was drawn last."""
    handles, labels = axes.get_legend_handles_labels()
    if mean_first:
        handles, labels = [handles[-1], *handles[:-1]], [labels[-1], *labels[:-1]]
    legend = axes.legend(
        handles, labels, loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False
    )
    legend.set_title("AP50  class")
    legend.set_alignment("left")


def _curves(axes: Axes, ranked: Sequence[tuple[str, ClassMetrics]]) -> None:
    """One line per class, best first; the middle ones are gray if the legend cannot hold them."""
    middle = ranked[EXTREMES:-EXTREMES] if len(ranked) > LEGEND_ROWS else []
    gray = {name for name, _ in middle}
    colors = iter(
        matplotlib.colormaps["turbo"](np.linspace(0.05, 0.95, max(len(ranked) - len(middle), 1)))
    )
    for name, item in ranked:
        if name in gray:
            label = f"…  {len(gray)} others" if name == middle[0][0] else None
            axes.plot(RECALLS, item.precision, color="0.8", linewidth=0.8, zorder=1, label=label)
        else:
            label = f"{item.ap50:.3f}  {short_name(name)}"
            axes.plot(RECALLS, item.precision, color=next(colors), linewidth=1.3, label=label)


def plot_confusion_matrix(metrics: Metrics, path: str | Path) -> None:
    """Write the confusion matrix: colors are shares of the true class (row), numbers are counts.

    The last column counts missed objects. The last row counts false detections, which have no true
    class: its colors are shares of all detections of the predicted class (column). With 25 rows or
    more the cells have no numbers; with more than 100 only every second (third, ...) is labeled.
    """
    counts = metrics.confusion
    names = [*map(short_name, metrics.per_class), "background"]
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    share[-1] = counts[-1] / np.maximum(counts.sum(axis=0), 1)
    side = float(np.clip(2.5 + 0.24 * len(names), 5, 17))
    with matplotlib.rc_context(PLOT_STYLE):
        figure = Figure(figsize=(side + 1.2, side), layout="compressed")
        axes = figure.add_subplot()
        image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        figure.colorbar(
            image,
            ax=axes,
            shrink=0.7,
            label="Share of the true class\n(last row: of the predicted class)",
        )
        step = math.ceil(len(names) / MAX_TICKS)
        ticks = sorted({*range(0, len(names), step), len(names) - 1})
        size = 9 if len(names) <= CELL_TEXT else 7
        shown = [names[tick] for tick in ticks]
        axes.set_xticks(ticks, shown, rotation=90 if len(names) > 4 else 0, fontsize=size)
        axes.set_yticks(ticks, shown, fontsize=size)
        axes.set(xlabel="Predicted", ylabel="True")
        axes.set_title(
            f"Confusion matrix, {metrics.images} images (score at least 0.25, IoU at least 0.5)"
        )
        if len(names) <= CELL_TEXT:
            _numbers(axes, counts, share)
        _save(figure, path)


def _numbers(axes: Axes, counts: np.ndarray, share: np.ndarray) -> None:
    size = 9 if len(counts) <= 10 else 6
    for row, column in zip(*np.nonzero(counts), strict=True):
        color = "white" if share[row, column] > 0.55 else "black"
        axes.text(
            column,
            row,
            str(counts[row, column]),
            ha="center",
            va="center",
            color=color,
            fontsize=size,
        )


def plot_training_curves(rows: Sequence[dict[str, float]], path: str | Path) -> None:
    """Write losses, average precision and learning rate over the epochs.

    Args:
        rows: one per epoch: `epoch, lr, loss, box, objectness, cls, map50, map50_95`. Any key but
            `epoch` may be missing or NaN, like the metrics of an epoch without evaluation.
        path: the image file.
    """
    epochs = [row["epoch"] for row in rows] or [0.0]
    limits = (min(epochs) - 0.5, max(epochs) + 0.5)
    with matplotlib.rc_context(PLOT_STYLE):
        figure = Figure(figsize=(12, 3.8), layout="constrained")
        loss, precision, rate = figure.subplots(1, 3)
        _lines(
            loss, rows, {"loss": "total", "box": "box", "objectness": "objectness", "cls": "class"}
        )
        _lines(precision, rows, {"map50": "mAP50", "map50_95": "mAP50-95"})
        _lines(rate, rows, {"lr": "learning rate"})
        loss.set(title="Training loss (weighted)", ylabel="Loss")
        precision.set(title="Validation" + _best(rows), ylabel="Average precision", ylim=(0, None))
        rate.set(title="Learning rate", ylabel="Learning rate", ylim=(0, None))
        for axes in (loss, precision, rate):
            axes.set(xlabel="Epoch", xlim=limits)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(alpha=0.25)
            if axes is not rate and axes.get_lines():
                axes.legend(frameon=False)
        _save(figure, path)


def _series(rows: Sequence[dict[str, float]], key: str) -> list[tuple[float, float]]:
    return [(row["epoch"], row[key]) for row in rows if math.isfinite(row.get(key, math.nan))]


def _lines(axes: Axes, rows: Sequence[dict[str, float]], labels: dict[str, str]) -> None:
    for key, label in labels.items():
        points = _series(rows, key)
        if points:
            marker = "o" if len(points) <= 30 else ""
            axes.plot(
                *zip(*points, strict=True), label=label, marker=marker, markersize=3, linewidth=1.5
            )


def _best(rows: Sequence[dict[str, float]]) -> str:
    points = _series(rows, "map50_95")
    if not points:
        return ""
    epoch, value = max(points, key=lambda point: point[1])
    return f": best mAP50-95 {value:.3f} in epoch {epoch:g}"
