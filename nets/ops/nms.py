"""Non-maximum suppression and box voting.

There are two implementations of the same rules. On a GPU, all images of a batch are processed
together, so that the CPU waits for the GPU only a few times per batch. On a CPU, they are processed
one by one with NumPy: an image has too few candidates to keep several threads busy, a NumPy call
costs a fraction of a PyTorch call, and PyTorch's threads would keep spinning and compete with those
of the backend that computes the next image.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms

from nets.ops.boxes import MIN_UNION, Array, coordinates_first, iou, pairwise_iou

VOTERS = 1000  # number of best candidates per image that vote
CLASS_BY_CLASS = 2000  # above this many candidates, NMS runs one class at a time
ROWS = 32  # detections voted on at once: larger temporaries would not fit in the CPU's cache


class RawDetections(NamedTuple):
    """Detections of one image, best score first.

    Attributes:
        boxes: float32 `(n, 4)`, xyxy in input pixels.
        scores: float32 `(n,)`, 0..1.
        labels: int64 `(n,)`, class index.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


@dataclass(frozen=True)
class _Limits:
    """The thresholds and limits passed to `non_max_suppression`, under the same names."""

    score: float
    nms_iou: float
    max_detections: int
    vote_iou: float

    @property
    def first_round(self) -> int:
        """Number of best candidates to try first."""
        return max(VOTERS, 2 * self.max_detections)


@dataclass
class _Candidates:
    """`RawDetections` as NumPy arrays, in any order."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    def __getitem__(self, index: np.ndarray) -> "_Candidates":
        return _Candidates(self.boxes[index], self.scores[index], self.labels[index])


@torch.no_grad()
def non_max_suppression(
    boxes: Tensor,
    scores: Tensor,
    score: float,
    nms_iou: float,
    max_detections: int,
    vote_iou: float = 1.0,
) -> list[RawDetections]:
    """Apply greedy NMS to each class, then box voting. A box may be kept for several classes.

    Box voting (Gidaris and Komodakis, ICCV 2015, arXiv 1505.01749): the boxes that NMS drops
    predict the same object from other grid cells and anchors, so the mean of all of them is more
    accurate.

    Args:
        boxes: float32 `(B, N, 4)`, xyxy in input pixels.
        scores: float32 `(B, N, C)`, 0..1.
        score: minimum score of a candidate, exclusive.
        nms_iou: IoU above which the weaker of two boxes of a class is dropped.
        max_detections: maximum number of detections per image.
        vote_iou: replace each detection's box by the mean, weighted by score * IoU^2, of the boxes
            of its class whose IoU with it is above this. Only the `VOTERS` best candidates of an
            image vote. 1: no voting.

    Returns:
        The detections of each image, on the device of `boxes`.
    """
    limits = _Limits(score, nms_iou, max_detections, vote_iou)
    if boxes.device.type == "cuda":
        return _suppress_batch(boxes, scores, limits)
    return [_suppress_image(*image, limits) for image in zip(boxes, scores, strict=True)]


def _vote_weights(overlap: Array, same_class: Array | None, vote_iou: float) -> Array:
    """Return the weight of each vote before the score; `same_class=None`: all are of one class."""
    has_vote = overlap > vote_iou
    if same_class is not None:
        has_vote &= same_class
    weights = overlap * overlap
    weights *= has_vote
    return weights


# On GPUs: all images of a batch together


def _suppress_batch(boxes: Tensor, scores: Tensor, limits: _Limits) -> list[RawDetections]:
    flat_scores = scores.flatten(1)
    top_scores, index = flat_scores.topk(min(limits.first_round, flat_scores.shape[1]), 1)
    box_index = (index // scores.shape[2])[..., None].expand(-1, -1, 4)
    top_boxes, labels = boxes.gather(1, box_index), index % scores.shape[2]
    valid = top_scores > limits.score
    overlap = pairwise_iou(top_boxes, top_boxes)  # (B, K, K)
    same_class = labels[:, :, None] == labels[:, None]
    keep = _greedy_nms((overlap > limits.nms_iou) & same_class, valid)
    keep = keep & (keep.cumsum(1) <= limits.max_detections)  # not in place: may be `valid`
    if limits.vote_iou < 1:
        weights = _vote_weights(overlap, same_class, limits.vote_iou)
        top_boxes = _vote_batch(top_boxes, top_scores * valid, weights)
    more_candidates = (flat_scores > limits.score).sum(1) > top_scores.shape[1]
    counts, incomplete = torch.stack([keep.sum(1), more_candidates]).tolist()
    columns = [column[keep].split(counts) for column in (top_boxes, top_scores, labels)]
    detections = [RawDetections(*image) for image in zip(*columns, strict=True)]
    for row, count in enumerate(counts):
        if incomplete[row] and count < limits.max_detections:
            detections[row] = _suppress_image(boxes[row], scores[row], limits)
    return detections


def _greedy_nms(suppresses: Tensor, valid: Tensor) -> Tensor:
    """Compute greedy NMS as a fixed point.

    After n rounds the first n candidates are final; in practice a few rounds are enough, unless
    there are long chains of overlapping boxes.

    Args:
        suppresses: bool `(B, K, K)`, whether candidate i would drop the weaker candidate j.
        valid: bool `(B, K)`, candidates best first.

    Returns:
        bool `(B, K)`, True for the candidates that are kept.
    """
    suppresses = suppresses.triu(1)
    keep = valid
    while True:
        remaining = valid & ~(suppresses & keep[:, :, None]).any(1)
        if torch.equal(remaining, keep):
            return keep
        keep = remaining


def _vote_batch(boxes: Tensor, scores: Tensor, weights: Tensor) -> Tensor:
    """Return the voted boxes of all candidates, `(B, K, 4)`; each has one full vote for itself."""
    ballots = torch.cat([boxes, torch.ones_like(scores)[..., None]], 2) * scores[..., None]
    weights.diagonal(dim1=1, dim2=2).zero_()
    sums = weights[:, :, :VOTERS] @ ballots[:, :VOTERS] + ballots
    return sums[..., :4] / sums[..., 4:]  # 0 / 0 only for invalid candidates


# On CPUs: one image at a time, with NumPy


def _suppress_image(boxes: Tensor, scores: Tensor, limits: _Limits) -> RawDetections:
    """Return the detections of one image from boxes `(N, 4)` and scores `(N, C)`."""
    detections = _suppress_arrays(boxes.cpu().numpy(), scores.cpu().numpy(), limits)
    columns = (detections.boxes, detections.scores, detections.labels)
    return RawDetections(*(torch.from_numpy(column).to(boxes.device) for column in columns))


def _suppress_arrays(boxes: np.ndarray, scores: np.ndarray, limits: _Limits) -> _Candidates:
    """Try the best candidates first, more of them only if those leave too few detections.

    Greedy NMS never revisits a decision: weaker candidates cannot change which of the better ones
    are kept. So the result is the same as with all candidates at once.
    """
    flat_scores = scores.ravel()
    above = np.flatnonzero(flat_scores > limits.score)
    above_scores = flat_scores[above]

    def gather(index: np.ndarray) -> _Candidates:
        flat_index = above[index]
        row, label = np.divmod(flat_index, scores.shape[1])
        return _Candidates(boxes[row], flat_scores[flat_index], label)

    best = tried = _highest(above_scores, limits.first_round)
    while True:
        candidates = gather(tried)
        keep = _nms_by_class(candidates, limits.nms_iou)
        if len(keep) >= limits.max_detections or len(tried) == len(above):
            break
        count = 16 * len(tried)
        # NMS sorts its input, so the full set does not have to be sorted here
        tried = _highest(above_scores, count) if count < len(above) else np.arange(len(above))
    keep = keep[: limits.max_detections]
    detections = candidates[keep]
    if limits.vote_iou >= 1:
        return detections
    voters = best[:VOTERS]
    is_voter = np.zeros(len(above), bool)
    is_voter[voters] = True
    return _vote(detections, is_voter[tried[keep]], gather(voters), limits.vote_iou)


def _highest(values: np.ndarray, count: int) -> np.ndarray:
    """Return the indices of the `count` highest values (all, if there are fewer), highest first."""
    if count < len(values):
        index = np.argpartition(-values, count)[:count]
    else:
        index = np.arange(len(values))
    return index[np.argsort(-values[index], kind="stable")]


def _nms_by_class(candidates: _Candidates, nms_iou: float) -> np.ndarray:
    """Return the indices of the candidates that are kept, best first.

    A small number of candidates is processed in one call, with the boxes of each class shifted so
    that classes cannot overlap; if one box is huge, the shifts exceed float32's precision, hence
    float64. NMS compares each box it keeps with all that follow, so a large number of candidates is
    processed class by class.
    """
    boxes, scores, labels = candidates.boxes, candidates.scores, candidates.labels
    if not len(boxes):
        return labels
    if len(boxes) <= CLASS_BY_CLASS:
        exact = boxes.astype(np.float64)
        shift = exact.max() - exact.min() + 1
        return _nms(exact + labels[:, None] * shift, scores.astype(np.float64), nms_iou)
    classes = np.split(labels.argsort(), np.bincount(labels).cumsum()[:-1])
    keep = np.concatenate([index[_nms(boxes[index], scores[index], nms_iou)] for index in classes])
    return keep[np.argsort(-scores[keep], kind="stable")]


def _nms(boxes: np.ndarray, scores: np.ndarray, nms_iou: float) -> np.ndarray:
    return nms(torch.from_numpy(boxes), torch.from_numpy(scores), nms_iou).numpy()


def _vote(
    detections: _Candidates, is_voter: np.ndarray, voters: _Candidates, vote_iou: float
) -> _Candidates:
    """Return the detections with their voted boxes.

    Detections and voters are sorted by class, so that each slice of detections is compared only
    with the voters of the same classes.

    Args:
        detections: n detections.
        is_voter: bool `(n,)`, whether each detection is among the voters.
        voters: the candidates that vote.
        vote_iou: as in `non_max_suppression`.
    """
    order = detections.labels.argsort(kind="stable")
    rows, voters = detections[order], voters[voters.labels.argsort(kind="stable")]
    start = np.searchsorted(voters.labels, rows.labels)
    stop = np.searchsorted(voters.labels, rows.labels, side="right")
    row_boxes, voter_boxes = coordinates_first(rows.boxes), coordinates_first(voters.boxes)
    ballots = _ballots(voters)
    # A voter's IoU with itself is 1, which counts its vote for itself. For an empty box, or a
    # detection that is not a voter, that vote is added here.
    empty = np.clip(rows.boxes[:, 2:] - rows.boxes[:, :2], 0, None).prod(1) < MIN_UNION
    sums = _ballots(rows) * (empty | ~is_voter[order])[:, None]
    for first in range(0, len(sums), ROWS):
        last = min(first + ROWS, len(sums)) - 1
        some, near = slice(first, last + 1), slice(start[first], stop[last])
        overlap = iou(row_boxes[:, some, None], voter_boxes[:, None, near])
        same_class = None
        if rows.labels[first] != rows.labels[last]:
            same_class = rows.labels[some, None] == voters.labels[near]
        sums[some] += _vote_weights(overlap, same_class, vote_iou) @ ballots[near]
    boxes = np.empty_like(detections.boxes)
    boxes[order] = sums[:, :4] / sums[:, 4:]
    return _Candidates(boxes, detections.scores, detections.labels)


def _ballots(candidates: _Candidates) -> np.ndarray:
    """Return each box and a 1, multiplied by the score: `(n, 5)`."""
    ones = np.ones_like(candidates.scores)
    return np.column_stack([candidates.boxes, ones]) * candidates.scores[:, None]
