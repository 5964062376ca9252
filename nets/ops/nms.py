"""Non-maximum suppression and box voting.

There are two implementations of the same rules. On a GPU the images of a batch go together, so that
the CPU waits for the GPU only a few times per batch. On a CPU they go one by one, with NumPy: an
image has too few candidates for several threads, NumPy's calls cost a fraction of PyTorch's, and
PyTorch's threads would keep spinning beside those of the backend that computes the next image.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms

from nets.ops.boxes import MIN_UNION, Array, coordinates_first, iou, pairwise_iou

VOTERS = 1000  # candidates per image that have a vote, best first
CLASS_BY_CLASS = 2000  # with more candidates, NMS takes one class at a time
ROWS = 32  # detections voted on at once: larger temporaries would leave the CPU's cache


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
    """The limits of `non_max_suppression`, under the same names."""

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
    """Greedy NMS class by class, then box voting. A box may be kept for several classes.

    Box voting (Gidaris and Komodakis, ICCV 2015, arXiv 1505.01749): the boxes that NMS drops see
    the same object from other grid cells and anchors, so the mean of all of them lies closer to it.

    Args:
        boxes: float32 `(B, N, 4)`, xyxy.
        scores: float32 `(B, N, C)`, 0..1.
        score: candidates need a higher score than this.
        nms_iou: IoU above which the weaker of two boxes of a class is dropped.
        max_detections: most detections per image.
        vote_iou: a detection's box becomes the mean of the boxes of its class whose IoU with it is
            above this, weighted by score * IoU^2. The `VOTERS` best candidates of an image have a
            vote. 1: boxes stay as they are.

    Returns:
        The detections of each image, on the device of `boxes`.
    """
    limits = _Limits(score, nms_iou, max_detections, vote_iou)
    if boxes.device.type == "cuda":
        return _suppress_batch(boxes, scores, limits)
    return [_suppress_image(*image, limits) for image in zip(boxes, scores, strict=True)]


def _vote_weights(overlap: Array, same_class: Array | None, vote_iou: float) -> Array:
    """Weight of each vote without the score; `same_class` None: all are of one class."""
    has_vote = overlap > vote_iou
    if same_class is not None:
        has_vote &= same_class
    weights = overlap * overlap
    weights *= has_vote
    return weights


# All images of a batch together, for GPUs


def _suppress_batch(boxes: Tensor, scores: Tensor, limits: _Limits) -> list[RawDetections]:
    flat_scores = scores.flatten(1)
    top_scores, index = flat_scores.topk(min(limits.first_round, flat_scores.shape[1]), 1)
    box_index = (index // scores.shape[2])[..., None].expand(-1, -1, 4)
    top_boxes, labels = boxes.gather(1, box_index), index % scores.shape[2]
    valid = top_scores > limits.score
    overlap = pairwise_iou(top_boxes, top_boxes)  # (B, K, K)
    same_class = labels[:, :, None] == labels[:, None]
    keep = _greedy_nms((overlap > limits.nms_iou) & same_class, valid)
    keep &= keep.cumsum(1) <= limits.max_detections
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
    """Greedy NMS as a fixed point.

    After n rounds the first n candidates are final; a few rounds settle all but long chains.

    Args:
        suppresses: bool `(B, K, K)`, whether candidate i would drop the weaker candidate j.
        valid: bool `(B, K)`, candidates best first.

    Returns:
        bool `(B, K)`, the candidates that stay.
    """
    suppresses = suppresses.triu(1)
    keep = valid
    while True:
        remaining = valid & ~(suppresses & keep[:, :, None]).any(1)
        if torch.equal(remaining, keep):
            return keep
        keep = remaining


def _vote_batch(boxes: Tensor, scores: Tensor, weights: Tensor) -> Tensor:
    """New boxes `(B, K, 4)` of all candidates; each one's own vote counts in full."""
    ballots = torch.cat([boxes, torch.ones_like(scores)[..., None]], 2) * scores[..., None]
    weights.diagonal(dim1=1, dim2=2).zero_()
    sums = weights[:, :, :VOTERS] @ ballots[:, :VOTERS] + ballots
    return sums[..., :4] / sums[..., 4:]  # 0 / 0 only for candidates that are not valid


# One image, with NumPy


def _suppress_image(boxes: Tensor, scores: Tensor, limits: _Limits) -> RawDetections:
    """The detections of one image: boxes `(N, 4)`, scores `(N, C)`."""
    detections = _suppress_arrays(boxes.cpu().numpy(), scores.cpu().numpy(), limits)
    columns = (detections.boxes, detections.scores, detections.labels)
    return RawDetections(*(torch.from_numpy(column).to(boxes.device) for column in columns))


def _suppress_arrays(boxes: np.ndarray, scores: np.ndarray, limits: _Limits) -> _Candidates:
    """Try the best candidates first, more of them only if those leave too few detections.

    Greedy NMS never looks back: what it keeps of the best candidates stays, whatever follows. So
    the result is that of all candidates.
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
        # NMS sorts by itself, so all of them need no order
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
    """Indices of the `count` highest values, or of all, highest first."""
    if count < len(values):
        index = np.argpartition(-values, count)[:count]
    else:
        index = np.arange(len(values))
    return index[np.argsort(-values[index], kind="stable")]


def _nms_by_class(candidates: _Candidates, nms_iou: float) -> np.ndarray:
    """Indices of the candidates that stay, best first.

    Few candidates go all at once, each class's boxes shifted beyond those of the class before;
    where one box is huge, that takes more digits than float32 has. NMS compares each box it keeps
    with all that follow, so many candidates go class by class.
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
    """The detections with new boxes; `is_voter` `(n,)` says which of them are among the voters.

    Both sides are sorted by class, so that a few rows meet only the voters of their own classes.
    """
    order = detections.labels.argsort(kind="stable")
    rows, voters = detections[order], voters[voters.labels.argsort(kind="stable")]
    start = np.searchsorted(voters.labels, rows.labels)
    stop = np.searchsorted(voters.labels, rows.labels, side="right")
    row_boxes, voter_boxes = coordinates_first(rows.boxes), coordinates_first(voters.boxes)
    ballots = _ballots(voters)
    # A voter overlaps itself by 1, which counts its own vote. An empty box, or a detection that is
    # no voter, has its own vote added.
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
    """Each box and a 1, times its score: `(n, 5)`."""
    ones = np.ones_like(candidates.scores)
    return np.column_stack([candidates.boxes, ones]) * candidates.scores[:, None]
