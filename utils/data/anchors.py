"""Anchors fitted to the training boxes: k-means with 1 - IoU of the shapes as distance.

Redmon, Farhadi: "YOLO9000: Better, Faster, Stronger", CVPR 2017, arXiv 1612.08242, section 2
(dimension clusters).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nets.ops.boxes import shape_iou
from nets.yolo.box_coder import DARKNET
from utils.core.images import Letterbox
from utils.data.sample import Sample

RESTARTS = 8
MAX_STEPS = 100  # k-means converges well before
MAX_BOXES = 20_000  # boxes to cluster; more change the anchors by less than a pixel


@dataclass(frozen=True)
class AnchorFit:
    """How well anchors fit boxes.

    Attributes:
        mean_iou: mean over the boxes of the best shape IoU with an anchor, 0..1.
        recall: fraction of the boxes with an anchor whose sides differ from theirs by less than a
            factor of 4.
        boxes: number of boxes.
    """

    mean_iou: float
    recall: float
    boxes: int


def fit_anchors(
    samples: Sequence[Sample], input_size: tuple[int, int], count: int = 6, seed: int = 0
) -> tuple[np.ndarray, AnchorFit]:
    """Cluster the shapes of the training boxes in the letterboxed input.

    The best of several runs wins; the same arguments give the same anchors. If there are fewer
    distinct shapes than `count`, Darknet's YOLOv4-tiny anchors, scaled to `input_size`, fill up the
    rest.

    Args:
        samples: the training images; crowd regions do not count.
        input_size: (height, width) of the input, in pixels.
        count: number of anchors.
        seed: seed of the random starts.

    Returns:
        float32 `(count, 2)`, width and height in input pixels, sorted by area; and how well they
        fit.
    """
    shapes = box_shapes(samples, input_size)
    distinct = np.unique(np.round(shapes, 2), axis=0)
    if len(distinct) <= count:
        defaults = darknet_anchors(input_size, heads=2 if count <= 6 else 3)
        spread = np.linspace(0, len(defaults) - 1, count - len(distinct)).round().astype(int)
        anchors = np.concatenate([distinct, defaults[spread]])
    else:
        anchors = _best_clusters(shapes, count, np.random.default_rng(seed & 0xFFFFFFFF))
    anchors = anchors[np.argsort(anchors.prod(1), kind="stable")].astype(np.float32)
    return anchors, measure_fit(shapes, anchors)


def darknet_anchors(input_size: tuple[int, int], heads: int) -> np.ndarray:
    """Darknet's anchors of a YOLOv4-tiny with this many heads, scaled to the input.

    Args:
        input_size: (height, width) of the input, in pixels.
        heads: 2 or 3.

    Returns:
        float64 `(3 * heads, 2)`, width and height in input pixels.
    """
    boxes = DARKNET[heads]
    return np.array(boxes.anchors) * (input_size[1] / boxes.side, input_size[0] / boxes.side)


def box_shapes(samples: Sequence[Sample], input_size: tuple[int, int]) -> np.ndarray:
    """Shapes of the boxes of all samples but crowd regions.

    Returns:
        float64 `(n, 2)`, width and height in input pixels.
    """
    shapes = [np.zeros((0, 2))]
    for sample in samples:
        letterbox = Letterbox((sample.height, sample.width), input_size)
        boxes = letterbox.boxes_to_input(sample.boxes)[~sample.crowd]
        shapes.append(boxes[:, 2:] - boxes[:, :2])
    joined = np.concatenate(shapes).astype(np.float64)
    return joined[(joined > 0).all(1)]


def measure_fit(shapes: np.ndarray, anchors: np.ndarray) -> AnchorFit:
    """How well anchors `(k, 2)` fit box shapes `(n, 2)`; zeros if there is no box."""
    if not len(shapes):
        return AnchorFit(0.0, 0.0, 0)
    ious = shape_iou(shapes[:, None], anchors)
    ratios = np.maximum(shapes[:, None] / anchors, anchors / shapes[:, None]).max(2).min(1)
    return AnchorFit(float(ious.max(1).mean()), float((ratios < 4).mean()), len(shapes))


def _best_clusters(shapes: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    if len(shapes) > MAX_BOXES:
        shapes = shapes[rng.choice(len(shapes), MAX_BOXES, replace=False)]
    runs = [_cluster(shapes, count, rng) for _ in range(RESTARTS)]
    return max(runs, key=lambda anchors: shape_iou(shapes[:, None], anchors).max(1).mean())


def _cluster(shapes: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """One run of k-means: k-means++ starts, then medians of the clusters, until convergence."""
    anchors = shapes[rng.integers(len(shapes))][None]
    for _ in range(count - 1):
        weights = np.maximum(1 - shape_iou(shapes[:, None], anchors).max(1), 0) ** 2
        chances = weights / weights.sum() if weights.sum() > 0 else None
        anchors = np.concatenate([anchors, shapes[rng.choice(len(shapes), p=chances)][None]])
    for _ in range(MAX_STEPS):
        nearest = shape_iou(shapes[:, None], anchors).argmax(1)
        moved = anchors.copy()
        for index in range(count):
            members = shapes[nearest == index]
            if len(members):
                moved[index] = np.median(members, 0)
        if np.array_equal(moved, anchors):
            break
        anchors = moved
    return anchors
