"""Confusion matrix of a detector."""

import numpy as np

from utils.metrics.pairs import CandidatePairs, FlatDetections, FlatObjects

MIN_SCORE = 0.25


def confusion_matrix(
    objects: FlatObjects, detections: FlatDetections, pairs: CandidatePairs, classes: int
) -> np.ndarray:
    """Compute the confusion matrix.

    Detections with score >= 0.25 and objects of any class are matched one to one if their IoU is at
    least 0.5, highest IoU first. Difficult objects and crowd regions are ignored, and so are
    unmatched detections that overlap them.

    Returns:
        int64 `(classes + 1, classes + 1)`: row = true class, column = predicted class, last =
        background.
    """
    skip = objects.difficult | objects.crowd
    confident = detections.score >= MIN_SCORE
    pairs = pairs.select(confident[pairs.detection])
    on_skipped = skip[pairs.object]
    excused = np.zeros_like(confident)
    excused[pairs.detection[on_skipped]] = True
    match = _match(pairs.select(~on_skipped), len(skip))
    unmatched = confident & ~excused
    unmatched[match[match >= 0]] = False
    predicted = np.append(detections.label, classes)[match]  # -1 (not detected): background
    background = np.full(int(unmatched.sum()), classes)
    rows = np.concatenate([objects.label[~skip], background])
    columns = np.concatenate([predicted[~skip], detections.label[unmatched]])
    side = classes + 1
    return np.bincount(rows * side + columns, minlength=side * side).reshape(side, side)


def _match(pairs: CandidatePairs, objects: int) -> np.ndarray:
    """The detection matched to each object, -1 for none, int64 `(objects,)`; greedy by IoU."""
    pairs = pairs.select(np.argsort(-pairs.iou, kind="stable"))
    match = np.full(objects, -1)
    used: set[int] = set()
    for detection, target in zip(pairs.detection.tolist(), pairs.object.tolist(), strict=True):
        if detection not in used and match[target] < 0:
            used.add(detection)
            match[target] = detection
    return match
