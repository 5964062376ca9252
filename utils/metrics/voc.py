"""Pascal VOC average precision at IoU 0.5, by the devkit's matching rules."""

from dataclasses import dataclass

import numpy as np

from utils.metrics.pairs import CandidatePairs, FlatDetections, FlatObjects, split_by_class


@dataclass(frozen=True)
class VocResult:
    """AP of each class, `(classes,)`, NaN without objects.

    Attributes:
        all_point: area under the curve (VOC2010 and later).
        eleven_point: mean of 11 points (VOC2007).
    """

    all_point: np.ndarray
    eleven_point: np.ndarray


def evaluate(
    objects: FlatObjects, detections: FlatDetections, pairs: CandidatePairs, classes: int
) -> VocResult:
    """VOC AP: a detection belongs to the object of its class with the highest IoU, at least 0.5.

    The detection of an object with the highest score is a hit, all others are false positives, even
    if they overlap another, undetected object. Detections of a `difficult` object count neither
    way, nor do those of a crowd region that belong to no other object.
    """
    pairs = pairs.select(detections.label[pairs.detection] == objects.label[pairs.object])
    best_first = (pairs.object, -pairs.iou, objects.crowd[pairs.object], pairs.detection)
    pairs = pairs.select(np.lexsort(best_first))
    matched, first = np.unique(pairs.detection, return_index=True)
    target = np.full(len(detections.score), -1)
    target[matched] = pairs.object[first]
    skip = objects.difficult | objects.crowd
    order = np.argsort(-detections.score, kind="stable")
    order = order[~np.append(skip, False)[target[order]]]
    target = target[order]
    hit = np.zeros(len(order), np.bool_)
    hit[np.unique(target, return_index=True)[1]] = True
    hit &= target >= 0
    positives = np.bincount(objects.label[~skip], minlength=classes)
    result = VocResult(np.empty(classes), np.empty(classes))
    for label, index in enumerate(split_by_class(detections.label[order], classes)):
        all_point, eleven_point = average_precision(hit[index], int(positives[label]))
        result.all_point[label] = all_point
        result.eleven_point[label] = eleven_point
    return result


def average_precision(hit: np.ndarray, positives: int) -> tuple[float, float]:
    """AP of one class.

    Args:
        hit: bool `(n,)`, whether each detection is a hit, in descending order of score.
        positives: number of objects.

    Returns:
        All-point and 11-point AP; NaN without objects.
    """
    if not positives:
        return float("nan"), float("nan")
    hits = np.cumsum(hit)
    recall = hits / positives
    precision = hits / np.arange(1, len(hit) + 1)
    # the best precision at each recall or beyond
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    steps = np.diff(recall, prepend=0.0)
    # k / 10 is rounded like hits / positives, so a recall of exactly 3/10 reaches the point 0.3
    reached = np.searchsorted(recall, np.arange(11) / 10)
    return float((steps * envelope[:-1]).sum()), float(envelope[reached].mean())
