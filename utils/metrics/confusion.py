"""Which class was taken for which."""

import numpy as np

from utils.metrics.pairs import Found, Objects, Pairs

MIN_SCORE = 0.25


def matrix(objects: Objects, found: Found, pairs: Pairs, classes: int) -> np.ndarray:
    """Counts `(classes + 1, classes + 1)`, int64: row = true class, column = predicted class, last = background.

    Detections of score >= 0.25 and objects of any class with IoU >= 0.5 are matched one to one, the highest IoU
    first. Difficult objects and crowds are left out, with the unmatched detections that overlap them.
    """
    skip = objects.difficult | objects.crowd
    shown = found.score >= MIN_SCORE
    pairs = pairs.where(shown[pairs.found])
    covers = skip[pairs.object]
    drop = np.zeros_like(shown)
    drop[pairs.found[covers]] = True
    predicted = _match(pairs.where(~covers), len(skip))
    free = shown & ~drop
    free[predicted[predicted >= 0]] = False
    label = np.append(found.label, classes)[predicted]  # -1, unmatched: background
    true = np.concatenate([objects.label[~skip], np.full(int(free.sum()), classes)])
    taken_for = np.concatenate([label[~skip], found.label[free]])
    side = classes + 1
    return np.bincount(true * side + taken_for, minlength=side * side).reshape(side, side)


def _match(pairs: Pairs, objects: int) -> np.ndarray:
    """The detection of every object, -1 for none, int64 `(objects,)`: one to one, greedy by IoU."""
    pairs = pairs.where(np.argsort(-pairs.iou, kind="stable"))
    predicted = np.full(objects, -1)
    used: set[int] = set()
    for index, item in zip(pairs.found.tolist(), pairs.object.tolist(), strict=True):
        if index not in used and predicted[item] < 0:
            used.add(index)
            predicted[item] = index
    return predicted
