"""Pascal VOC average precision at IoU 0.5, by the devkit's matching rules."""

from dataclasses import dataclass

import numpy as np

from utils.metrics.pairs import Found, Objects, Pairs, split_by_class


@dataclass(frozen=True)
class VocResult:
    """Per class `(classes,)`: area under the curve (VOC2010 on) and 11-point mean (VOC2007); NaN without objects."""

    all_point: np.ndarray
    eleven_point: np.ndarray


def evaluate(objects: Objects, found: Found, pairs: Pairs, classes: int) -> VocResult:
    """VOC AP: a detection belongs to the object of its class with the highest IoU, if that is at least 0.5.

    The best scored detection of an object is a hit, every further one a false positive, even where another object
    is free. Detections of a `difficult` object count neither way. A crowd region is treated like a difficult
    object, for detections that belong to no other object.
    """
    pairs = pairs.where(found.label[pairs.found] == objects.label[pairs.object])
    pairs = pairs.where(
        np.lexsort((pairs.object, -pairs.iou, objects.crowd[pairs.object], pairs.found))
    )
    owners, first = np.unique(pairs.found, return_index=True)
    target = np.full(len(found.score), -1)
    target[owners] = pairs.object[first]
    skip = objects.difficult | objects.crowd
    order = np.argsort(-found.score, kind="stable")
    order = order[~np.append(skip, False)[target[order]]]
    hit = np.zeros(len(order), np.bool_)
    hit[np.unique(target[order], return_index=True)[1]] = True
    hit &= target[order] >= 0
    positives = np.bincount(objects.label[~skip], minlength=classes)
    curves = [hit[index] for index in split_by_class(found.label[order], classes)]
    points = [
        average_precision(hits, int(count)) for hits, count in zip(curves, positives, strict=True)
    ]
    table = np.array(points, np.float64).reshape(-1, 2)
    return VocResult(table[:, 0], table[:, 1])


def average_precision(hit: np.ndarray, positives: int) -> tuple[float, float]:
    """All-point and 11-point AP of detections in descending order of score; NaN without positives."""
    if not positives:
        return float("nan"), float("nan")
    hits = np.cumsum(hit)
    recall = hits / positives
    precision = hits / np.arange(1, len(hit) + 1)
    envelope = np.append(
        np.maximum.accumulate(precision[::-1])[::-1], 0.0
    )  # best precision at this recall or beyond
    steps = np.diff(recall, prepend=0.0)
    # k / 10 is rounded like hits / positives, so a recall of exactly 3/10 reaches the point 0.3
    reached = np.searchsorted(recall, np.arange(11) / 10)
    return float((steps * envelope[:-1]).sum()), float(envelope[reached].mean())
