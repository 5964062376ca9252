"""The plots of a dataset's page, as PNG."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator

from utils.data.tools.statistics import Statistics
from utils.visualization.figures import BESIDE, COLORS, finish, new_figure, short_name, to_png

MAX_CLASSES = 40  # with more, only the largest and the smallest are drawn
MAX_POINTS = 20_000


def class_balance(statistics: Statistics) -> bytes:
    """Objects per class and split; of many classes, the largest and the smallest."""
    splits = statistics.inventory.splits
    totals = dict.fromkeys(statistics.inventory.class_names, 0)
    for split in splits.values():
        for name, count in split.report.per_class.items():
            totals[name] += count
    names = sorted(totals, key=lambda name: -totals[name])
    if len(names) > MAX_CLASSES:
        names = names[: MAX_CLASSES // 2] + names[-MAX_CLASSES // 2 :]
    height = 0.8 / max(1, len(splits))
    with new_figure(8.6, 1.2 + 0.28 * max(3, len(names))) as figure:
        axes = figure.add_subplot()
        for row, (name, split) in enumerate(splits.items()):
            counts = [split.report.per_class[label] for label in names]
            places = np.arange(len(names)) + (row + 0.5) * height - 0.4
            color = COLORS[(row + 1) % len(COLORS)]
            axes.barh(places, counts, height, label=name, color=color)
        axes.set_yticks(range(len(names)), [short_name(name) for name in names])
        axes.set_ylim(max(len(names), 1) - 0.4, -0.6)
        finish(axes, xlabel="Objects")
        if splits:
            axes.legend(**BESIDE)
        return to_png(figure)


def box_sizes(statistics: Statistics) -> bytes:
    """Width against height of the objects in input pixels, with anchors and strides."""
    shapes, anchors = statistics.shapes, statistics.anchors
    if len(shapes) > MAX_POINTS:
        shapes = shapes[np.random.default_rng(0).choice(len(shapes), MAX_POINTS, replace=False)]
    with new_figure(8.6, 6) as figure:
        axes = figure.add_subplot()
        opacity = max(0.05, min(0.6, 300 / max(1, len(shapes))))
        axes.scatter(
            shapes[:, 0],
            shapes[:, 1],
            s=9,
            color=COLORS[1],
            label="object",
            alpha=opacity,
            linewidths=0,
        )
        for label, values, marker, color in (
            ("Darknet's anchor", anchors.darknet, "x", COLORS[2]),
            ("fitted anchor", anchors.fitted, "+", COLORS[0]),
        ):
            axes.plot(values[:, 0], values[:, 1], marker, color=color, label=label, mew=2)
        for stride, dashes in zip(statistics.inventory.strides, ("--", ":", "-."), strict=False):
            for draw in (axes.axvline, axes.axhline):
                line = draw(stride, color="black", linestyle=dashes, linewidth=1)
            line.set_label(f"stride {stride}")
        axes.set(xscale="log", yscale="log", aspect="equal")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(_powers_of_two(statistics.inventory.input_size))
            axis.set_major_formatter("{x:.0f}")
            axis.minorticks_off()
        finish(axes, xlabel="Width in the input, px", ylabel="Height in the input, px")
        legend = axes.legend(**BESIDE)
        for handle in legend.legend_handles:
            if handle is not None:
                handle.set_alpha(1)
        return to_png(figure)


def _powers_of_two(input_size: tuple[int, int]) -> FixedLocator:
    return FixedLocator([2**power for power in range(1, 1 + math.ceil(math.log2(max(input_size))))])


def objects_per_image(statistics: Statistics) -> bytes:
    """How many images have how many objects, per split."""
    largest = max((int(n.max(initial=0)) for n in statistics.objects_per_image.values()), default=0)
    step = max(1, math.ceil((largest + 1) / 40))
    edges = np.arange(0, largest + 1 + step, step) - 0.5
    colors = [COLORS[(row + 1) % len(COLORS)] for row in range(len(statistics.objects_per_image))]
    with new_figure(8.6, 3) as figure:
        axes = figure.add_subplot()
        counts = list(statistics.objects_per_image.values())
        if counts:
            names = list(statistics.objects_per_image)
            axes.hist(counts, edges.tolist(), label=names, color=colors, stacked=True)
            axes.legend(**BESIDE)
        finish(axes, xlabel="Objects in an image", ylabel="Images")
        return to_png(figure)


def image_sizes(statistics: Statistics) -> bytes:
    """Sizes of the images, and their aspect ratios."""
    sizes, counts = np.unique(statistics.image_sizes, axis=0, return_counts=True)
    with new_figure(8.6, 3.4) as figure:
        left, right = figure.subplots(1, 2)
        area = 20 + 280 * counts / max(1, counts.max(initial=1))
        left.scatter(*sizes.T, s=area, color=COLORS[1], alpha=0.5, linewidths=0)
        left.margins(0.2)
        _from_zero(left)
        finish(left, xlabel="Width, px", ylabel="Height, px", title="Larger: more images")
        ratios = statistics.image_sizes[:, 0] / statistics.image_sizes[:, 1]
        right.hist(np.log2(ratios), 41, range=(-2.05, 2.05), color=COLORS[1])
        right.set_xticks([-2, -1, 0, 1, 2], ["1:4", "1:2", "1:1", "2:1", "4:1"])
        finish(right, xlabel="Width : height", ylabel="Images", title="Aspect ratios")
        return to_png(figure)


def _from_zero(axes: Axes) -> None:
    axes.set_xlim(0, max(axes.get_xlim()[1], 1))
    axes.set_ylim(0, max(axes.get_ylim()[1], 1))


def places(statistics: Statistics) -> bytes:
    """How many objects cover each place of the image."""
    with new_figure(8.6, 4.2) as figure:
        axes = figure.add_subplot()
        image = axes.imshow(statistics.coverage, cmap="viridis", extent=(0, 1, 1, 0), vmin=0)
        figure.colorbar(image, ax=axes, label="Objects")
        axes.set(xlabel="x / width", ylabel="y / height")
        return to_png(figure)
