"""Anchors fitted to the training boxes: k-means with 1 - IoU of the shapes as distance.

Redmon, Farhadi: "YOLO9000: Better, Faster, Stronger", CVPR 2017, arXiv 1612.08242, section 2
(dimension clusters).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nets.ops.boxes import shape_iou
from nets.yolo.box_coder import DARKNET_ANCHORS
from utils.core.images import Letterbox
from utils.data.sample import Sample

RESTARTS = 8
STEPS = 100  # k-means settles well before
SAMPLE = 20_000  # boxes that are clustered; more would move the anchors by less than a pixel


@dataclass(frozen=True)
class AnchorFit:
    """How well anchors fit boxes.

    Attributes:
        mean_iou: mean over the boxes of the best shape IoU with an anchor, 0..1.
        recall: share of boxes with an anchor whose sides are within a factor of 4, 0..1.
        boxes: number of boxes.
    """

    mean_iou: float
    recall: float
    boxes: int


def fit_anchors(
    samples: Sequence[Sample], size: tuple[int, int], count: int = 6, seed: int = 0
) -> tuple[np.ndarray, AnchorFit]:
    """Cluster the shapes of the training boxes as they appear in the letterboxed input.

    Crowd regions do not count. The best of several starts wins; the same arguments always give the
    same anchors. If there are fewer distinct shapes than `count`, Darknet's YOLOv4-tiny anchors,
    scaled from 416 to `size`, fill the rest.

    Args:
        samples: the training samples.
        size: (height, width) of the input, pixels.
        count: number of anchors.
        seed: seeds the starts and the subset of boxes.

    Returns:
        float32 `(count, 2)`, width and height in input pixels, by area; and how well they fit.
    """
    shapes = box_shapes(samples, size)
    default = np.array(DARKNET_ANCHORS) * (size[1] / 416, size[0] / 416)
    distinct = np.unique(np.round(shapes, 2), axis=0)
    if len(distinct) <= count:
        spare = default[np.linspace(0, len(default) - 1, count - len(distinct)).round().astype(int)]
        anchors = np.concatenate([distinct, spare])
    else:
        rng = np.random.default_rng(seed & 0xFFFFFFFF)
        sample = (
            shapes
            if len(shapes) <= SAMPLE
            else shapes[rng.choice(len(shapes), SAMPLE, replace=False)]
        )
        runs = [_cluster(sample, count, rng) for _ in range(RESTARTS)]
        anchors = max(runs, key=lambda found: shape_iou(sample[:, None], found).max(1).mean())
    anchors = anchors[np.argsort(anchors.prod(1), kind="stable")].astype(np.float32)
    return anchors, measure(shapes, anchors)


def box_shapes(samples: Sequence[Sample], size: tuple[int, int]) -> np.ndarray:
    """Width and height of every box that is no crowd region, in input pixels: float64 `(n, 2)`."""
    found = [np.zeros((0, 2))]
    for sample in samples:
        boxes = Letterbox((sample.height, sample.width), size).boxes_to_input(sample.boxes)[
            ~sample.crowd
        ]
        found.append(boxes[:, 2:] - boxes[:, :2])
    shapes = np.concatenate(found).astype(np.float64)
    return shapes[(shapes > 0).all(1)]


def measure(shapes: np.ndarray, anchors: np.ndarray) -> AnchorFit:
    """How well `anchors` `(k, 2)` fit box shapes `(n, 2)`; zeros where there is no box."""
    if not len(shapes):
        return AnchorFit(0.0, 0.0, 0)
    ratios = np.maximum(shapes[:, None] / anchors, anchors / shapes[:, None]).max(2).min(1)
    return AnchorFit(
        float(shape_iou(shapes[:, None], anchors).max(1).mean()),
        float((ratios < 4).mean()),
        len(shapes),
    )


def _cluster(shapes: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """One run of k-means: a k-means++ start, then medians of the members until nothing moves."""
    anchors = shapes[rng.integers(len(shapes))][None]
    for _ in range(count - 1):
        far = np.maximum(1 - shape_iou(shapes[:, None], anchors).max(1), 0) ** 2
        chance = far / far.sum() if far.sum() > 0 else None
        anchors = np.concatenate([anchors, shapes[rng.choice(len(shapes), p=chance)][None]])
    for _ in range(STEPS):
        owner = shape_iou(shapes[:, None], anchors).argmax(1)
        members = [shapes[owner == index] for index in range(count)]
        moved = np.array(
            [
                np.median(group, 0) if len(group) else anchor
                for group, anchor in zip(members, anchors, strict=True)
            ]
        )
        if np.array_equal(moved, anchors):
            break
        anchors = moved
    return anchors
