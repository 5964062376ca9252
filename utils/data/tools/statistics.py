"""What a dataset is like, as numbers and as sentences about what to notice."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from utils.core.images import Letterbox
from utils.data.anchors import AnchorFit, box_shapes, darknet_anchors, fit_anchors, measure_fit
from utils.data.sample import Sample
from utils.data.tools.check import Problem
from utils.data.tools.inventory import Inventory

GRID = 64  # cells per side of the map of where objects lie
LARGER_INPUTS = (512, 608, 832, 1024)  # suggested if objects are too small, pixels
MANY_SMALL = 0.02  # share of the objects that is worth a sentence
MANY_EMPTY = 0.5  # share of the images
RARE = 20  # objects of a class in the training split
IMBALANCE = 20  # how many times as many objects the largest class has


@dataclass(frozen=True)
class AnchorComparison:
    """Anchors, (width, height) in input pixels `(k, 2)`, and how well they fit the training boxes.

    Attributes:
        darknet: Darknet's, scaled to the input.
        darknet_fit: their fit.
        fitted: clusters of the boxes.
        fitted_fit: their fit.
    """

    darknet: np.ndarray
    darknet_fit: AnchorFit
    fitted: np.ndarray
    fitted_fit: AnchorFit


@dataclass(frozen=True)
class Statistics:
    """A dataset in numbers.

    Attributes:
        inventory: the dataset.
        problems: what `check` finds in it.
        shapes: width and height of each object in input pixels, float64 `(n, 2)`.
        objects_per_image: split -> number of objects of each image, int64 `(n,)`.
        image_sizes: width and height of each image in pixels, int64 `(n, 2)`.
        coverage: how many objects cover a place in the image, float64 `(GRID, GRID)`; the image is
            stretched to a square.
        anchors: how well anchors fit the training boxes.
    """

    inventory: Inventory
    problems: Sequence[Problem]
    shapes: np.ndarray
    objects_per_image: dict[str, np.ndarray]
    image_sizes: np.ndarray
    coverage: np.ndarray
    anchors: AnchorComparison


def measure(inventory: Inventory, problems: Sequence[Problem]) -> Statistics:
    """Compute the statistics of all splits."""
    samples = inventory.samples()
    counts = {
        name: np.array([int((~sample.crowd).sum()) for sample in split.samples], np.int64)
        for name, split in inventory.splits.items()
    }
    sizes = np.array([(sample.width, sample.height) for sample in samples], np.int64)
    return Statistics(
        inventory=inventory,
        problems=problems,
        shapes=box_shapes(samples, inventory.input_size),
        objects_per_image=counts,
        image_sizes=sizes.reshape(-1, 2),
        coverage=_coverage(samples),
        anchors=compare_anchors(train_samples(inventory), inventory.input_size, inventory.heads),
    )


def train_samples(inventory: Inventory) -> Sequence[Sample]:
    """The images of the training split; of the first one if it is not there."""
    splits = inventory.splits
    name = inventory.data.train if inventory.data.train in splits else next(iter(splits), None)
    return splits[name].samples if name is not None else []


def compare_anchors(
    samples: Sequence[Sample], input_size: tuple[int, int], heads: int, count: int | None = None
) -> AnchorComparison:
    """Fit anchors, and measure Darknet's on the same boxes.

    Args:
        samples: the training images.
        input_size: (height, width) of the input, in pixels.
        heads: number of heads of the network.
        count: number of fitted anchors; None: as many as the network takes.
    """
    darknet = darknet_anchors(input_size, heads)
    fitted, fit = fit_anchors(samples, input_size, count or len(darknet))
    shapes = box_shapes(samples, input_size)
    return AnchorComparison(darknet, measure_fit(shapes, darknet), fitted, fit)


def _coverage(samples: Sequence[Sample]) -> np.ndarray:
    """Number of objects over each cell, by a two-dimensional running sum of their corners."""
    corners = np.zeros((GRID + 1, GRID + 1))
    for sample in samples:
        scale = GRID / np.array([sample.width, sample.height] * 2)
        places = np.clip(np.round(sample.boxes[~sample.crowd] * scale), 0, GRID)
        x1, y1, x2, y2 = places.astype(np.int64).T
        for ys, xs, sign in ((y1, x1, 1), (y1, x2, -1), (y2, x1, -1), (y2, x2, 1)):
            np.add.at(corners, (ys, xs), sign)
    return corners.cumsum(0).cumsum(1)[:GRID, :GRID]


def small_share(statistics: Statistics, input_size: tuple[int, int]) -> float:
    """Share of the objects that are `small` at another input size, 0..1."""
    if not len(statistics.shapes):
        return 0.0
    sizes = statistics.image_sizes[:, ::-1].tolist()
    now = _mean_scale(sizes, statistics.inventory.input_size)
    factor = _mean_scale(sizes, input_size) / now
    return float(((statistics.shapes * factor).prod(1) < statistics.inventory.small**2).mean())


def _mean_scale(sizes: Sequence[tuple[int, int]], input_size: tuple[int, int]) -> float:
    return float(np.mean([Letterbox((h, w), input_size).scale for h, w in set(map(tuple, sizes))]))


def remarks(statistics: Statistics) -> list[str]:
    """Sentences about what to notice, the most important first."""
    inventory = statistics.inventory
    found = [*_leaks(statistics), *_sizes(statistics), *_balance(statistics), *_images(statistics)]
    errors = sum(problem.count for problem in statistics.problems if problem.is_error)
    if errors:
        root = inventory.data.root
        found.append(f"{errors} errors in the files: python -m utils.data check --root {root}")
    return found or ["Nothing unusual."]


def _leaks(statistics: Statistics) -> Iterator[str]:
    for problem in statistics.problems:
        if problem.rule.startswith("image also in"):
            yield (
                f"{problem.count} images of '{problem.split}' are also in "
                f"{problem.rule.removeprefix('image also in ')}: what is measured on them is not "
                "what new images would give."
            )
    names = statistics.inventory.splits
    if len(names) == 1 and statistics.inventory.data.format != "shapes":
        yield "There is one split only: training divides it, or `split` does it once for all."


def _sizes(statistics: Statistics) -> Iterator[str]:
    inventory = statistics.inventory
    height, width = inventory.input_size
    share = small_share(statistics, (height, width))
    if share >= MANY_SMALL:
        text = (
            f"{share:.0%} of the objects are smaller than {inventory.small} px at {width}x{height}"
        )
        larger = [size for size in LARGER_INPUTS if size > max(height, width)]
        for size in larger:
            then = small_share(statistics, (size, size))
            if then < share / 2 or size == larger[-1]:
                text += f", {then:.0%} at {size}x{size}: set input_size={size}"
                break
        finest = inventory.strides[-1]
        yield f"{text}. Half a cell of the finest map (stride {finest}) is hard to detect."
    anchors = statistics.anchors
    gain = anchors.fitted_fit.recall - anchors.darknet_fit.recall
    if gain >= 0.02:
        yield (
            f"Fitted anchors reach {anchors.fitted_fit.recall:.0%} of the objects, Darknet's "
            f"{anchors.darknet_fit.recall:.0%}: keep model.anchors=auto."
        )


def _balance(statistics: Statistics) -> Iterator[str]:
    for name, split in statistics.inventory.splits.items():
        absent = [label for label, count in split.report.per_class.items() if not count]
        if absent:
            yield f"Split '{name}' has no objects of {_listed(absent)}."
    train = statistics.inventory.data.train
    if train not in statistics.inventory.splits:
        return
    counts = statistics.inventory.splits[train].report.per_class
    present = {label: count for label, count in counts.items() if count}
    rare = [f"{label} ({count})" for label, count in present.items() if count < RARE]
    if rare:
        yield f"Classes with fewer than {RARE} objects to learn from: {_listed(rare)}."
    if len(present) > 1:
        ranked = sorted(present, key=lambda label: -present[label])
        largest, smallest = ranked[0], ranked[-1]
        times = present[largest] / present[smallest]
        if times >= IMBALANCE:
            yield f"'{largest}' has {times:.0f} times as many training objects as '{smallest}'."


def _images(statistics: Statistics) -> Iterator[str]:
    counts = np.concatenate([np.zeros(0, np.int64), *statistics.objects_per_image.values()])
    if not len(counts):
        yield "There are no images."
        return
    empty = float((counts == 0).mean())
    if empty >= MANY_EMPTY:
        yield f"{empty:.0%} of the images have no objects."
    if counts.max() > 100:
        yield (
            f"An image has {counts.max()} objects: COCO AP counts at most 100 detections "
            "(eval.max_detections)."
        )
    ratios = statistics.image_sizes[:, 0] / statistics.image_sizes[:, 1]
    height, width = statistics.inventory.input_size
    padded = 1 - np.minimum(ratios / (width / height), (width / height) / ratios)
    if float(np.median(padded)) > 0.4:
        yield (
            f"Half of the images leave {np.median(padded):.0%} of the input empty: "
            "set input_size=[HEIGHT, WIDTH] in their shape."
        )


def _listed(names: Sequence[str], limit: int = 8) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def to_json(statistics: Statistics) -> dict[str, Any]:
    """The numbers, as `--json` writes them."""
    inventory, anchors = statistics.inventory, statistics.anchors
    splits = {}
    for name, split in inventory.splits.items():
        counts = statistics.objects_per_image[name]
        splits[name] = {
            **split.report.totals(),
            "objects_per_image": {
                "mean": float(counts.mean()) if len(counts) else 0.0,
                "max": int(counts.max(initial=0)),
            },
        }
    return {
        "root": inventory.data.root,
        "format": inventory.data.format,
        "input_size": list(inventory.input_size),
        "class_names": list(inventory.class_names),
        "splits": splits,
        "small_share": small_share(statistics, inventory.input_size),
        "anchors": anchors_to_json(anchors),
        "remarks": remarks(statistics),
        "problems": [asdict(problem) for problem in statistics.problems],
    }


def describe_anchors(anchors: AnchorComparison, input_size: tuple[int, int]) -> list[str]:
    """Lines for the terminal: both fits, and the key that sets the fitted anchors."""
    lines = [f"{anchors.fitted_fit.boxes} training objects at {input_size[1]}x{input_size[0]}"]
    for title, fit in (("Darknet's", anchors.darknet_fit), ("fitted", anchors.fitted_fit)):
        lines.append(f"{title:<10} recall {fit.recall:6.1%}, mean IoU {fit.mean_iou:.3f}")
    words = ", ".join(f"[{w:.1f}, {h:.1f}]" for w, h in anchors.fitted.tolist())
    lines.append(f"'model.anchors=[{words}]'")
    if len(anchors.fitted) != len(anchors.darknet):
        lines.append(f"(this network takes {len(anchors.darknet)})")
    return lines


def anchors_to_json(anchors: AnchorComparison) -> dict[str, Any]:
    """Both sets of anchors with their fit."""
    return {
        "darknet": {"anchors": anchors.darknet.round(2).tolist(), **asdict(anchors.darknet_fit)},
        "fitted": {
            "anchors": anchors.fitted.astype(np.float64).round(2).tolist(),
            **asdict(anchors.fitted_fit),
        },
    }
