"""Boxes and scores of one image in main memory -> detections: non-maximum suppression and box voting.

With numpy: an image has too few candidates for several threads, and numpy's calls cost a fraction of PyTorch's, whose
threads would keep spinning beside those of the backend that computes the next picture.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torchvision.ops import nms

VOTERS = 1000  # candidates of an image that vote on where kept boxes lie, best first
MANY = 2000  # candidates from which on classes are taken one by one
ROWS = 32  # boxes that are voted on at once: larger temporaries leave the cache
TINY = np.finfo(np.float32).tiny  # an empty union must not be divided by

Arrays = tuple[
    np.ndarray, np.ndarray, np.ndarray
]  # boxes (n, 4), scores (n,) float32, labels (n,) int64


@dataclass(frozen=True)
class Limits:
    """What `nets.ops.nms.select` is asked for, under the same names."""

    score: float
    nms_iou: float
    max_detections: int
    vote_iou: float

    @property
    def first(self) -> int:
        """How many of the best candidates are tried first."""
        return max(VOTERS, 2 * self.max_detections)


def select_one(boxes: np.ndarray, scores: np.ndarray, limits: Limits) -> Arrays:
    """What `nets.ops.nms.select` returns, of one picture.

    Args:
        boxes: `(N, 4)` xyxy, float32. scores: `(N, C)`, 0..1, float32.

    Returns:
        Boxes `(n, 4)`, scores `(n,)`, labels `(n,)` int64, best first.

    Greedy NMS never looks back: what it keeps of the best candidates stays kept whatever follows. So the best are
    tried first, and more only while they give too few: the result is that of all candidates, however many.
    """
    found = np.flatnonzero(scores > limits.score)
    candidates = scores.ravel()[found]
    best = taken = _best(candidates, limits.first)
    while True:
        tried = _at(found[taken], boxes, scores)
        keep = _nms_by_class(*tried, limits.nms_iou)
        if len(keep) >= limits.max_detections or len(taken) == len(found):
            break
        more = 16 * len(taken)
        taken = (
            _best(candidates, more) if more < len(found) else np.arange(len(found))
        )  # NMS sorts them itself
    keep = keep[: limits.max_detections]
    near, values, labels = (column[keep] for column in tried)
    if limits.vote_iou < 1:
        best = best[:VOTERS]
        votes = np.zeros(len(found), bool)
        votes[best] = True
        voters = _at(found[best], boxes, scores)
        near = _vote((near, values, labels), voters, votes[taken[keep]], limits.vote_iou)
    return near, values, labels


def _best(values: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` highest, or all, best first."""
    some = (
        np.argpartition(-values, count)[:count] if count < len(values) else np.arange(len(values))
    )
    return some[np.argsort(-values[some], kind="stable")]


def _at(index: np.ndarray, boxes: np.ndarray, scores: np.ndarray) -> Arrays:
    """The candidates at `index` of the flat scores."""
    row, label = np.divmod(index, scores.shape[1])
    return boxes[row], scores.ravel()[index], label


def _nms_by_class(
    boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, nms_iou: float
) -> np.ndarray:
    """Indices kept, best first. Classes are told apart by shifting each one's boxes beyond those of the last, which
    takes more digits than float32 has where one box is huge. As each box kept is compared with all that follow, the
    classes of many are taken one by one.
    """
    if not len(boxes):
        return labels
    if len(boxes) > MANY:
        classes = np.split(labels.argsort(), np.bincount(labels).cumsum()[:-1])
        keep = np.concatenate([own[_nms(boxes[own], scores[own], nms_iou)] for own in classes])
        return keep[np.argsort(-scores[keep], kind="stable")]
    exact = boxes.astype(np.float64)
    width = exact.max() - exact.min() + 1
    return _nms(exact + labels[:, None] * width, scores.astype(np.float64), nms_iou)


def _nms(boxes: np.ndarray, scores: np.ndarray, nms_iou: float) -> np.ndarray:
    return nms(torch.from_numpy(boxes), torch.from_numpy(scores), nms_iou).numpy()


def _vote(kept: Arrays, voters: Arrays, votes: np.ndarray, vote_iou: float) -> np.ndarray:
    """Box voting (Gidaris and Komodakis, ICCV 2015, arXiv 1505.01749), with weights score * IoU^2: the new boxes.

    The neighbors that NMS drops see the same object from other cells and anchors: their mean lies closer to it.
    `votes` `(n,)` tells which of the boxes kept are among the voters. Both are sorted by class, so that a few rows
    meet the voters of their own classes only.
    """
    order, turn = kept[2].argsort(kind="stable"), voters[2].argsort(kind="stable")
    boxes, scores, labels = (column[order] for column in kept)
    near, ratings, alike = (column[turn] for column in voters)
    first, last = np.searchsorted(alike, labels), np.searchsorted(alike, labels, side="right")
    ballots = np.column_stack([near, np.ones_like(ratings)]) * ratings[:, None]
    # a box overlaps itself by 1: it has its own vote among the others', unless it is empty or not among the voters
    empty = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(1) < TINY
    sums = (
        np.column_stack([boxes, np.ones_like(scores)]) * (scores * (empty | ~votes[order]))[:, None]
    )
    for start in range(0, len(boxes), ROWS):
        end = min(start + ROWS, len(boxes))
        some = slice(first[start], last[end - 1])
        overlap = _overlaps(boxes[start:end], near[some])
        agree = overlap > vote_iou
        if labels[start] != labels[end - 1]:
            agree &= labels[start:end, None] == alike[some]
        weights = overlap * overlap * agree
        sums[start:end] += weights @ ballots[some]
    voted = np.empty_like(boxes)
    voted[order] = sums[:, :4] / sums[:, 4:]
    return voted


def _overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """IoU `(n, m)`, 0 of two empty boxes."""
    a, b = np.ascontiguousarray(first.T)[:, :, None], np.ascontiguousarray(second.T)[:, None]
    width = np.minimum(a[2], b[2])
    width -= np.maximum(a[0], b[0])
    height = np.minimum(a[3], b[3])
    height -= np.maximum(a[1], b[1])
    both = np.maximum(width, 0, out=width)
    both *= np.maximum(height, 0, out=height)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    union -= both
    return np.divide(both, np.maximum(union, TINY, out=union), out=both)
