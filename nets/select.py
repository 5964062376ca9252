"""Boxes and scores -> detections: non-maximum suppression and box voting."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import nms

VOTERS = 1000  # candidates of a picture that vote on where kept boxes lie, best first
MANY = 2000  # candidates from which on classes are taken one by one on a processor
ROWS = 100  # boxes that are voted on at once: larger temporaries leave the cache and cost ten times as much
TINY = 1e-12  # candidates of score 0 are not kept, but must not divide by it

Found = tuple[Tensor, Tensor, Tensor]  # of a picture: boxes (n, 4), scores (n,), labels (n,) int64, best first


@dataclass(frozen=True)
class Limits:
    """What `select` is asked for, under the same names."""

    score: float
    nms_iou: float
    max_detections: int
    merge_iou: float

    @property
    def first(self) -> int:
        """How many of the best candidates are tried first."""
        return max(VOTERS, 2 * self.max_detections)


@torch.no_grad()
def select(
    boxes: Tensor, scores: Tensor, score: float, nms_iou: float, max_detections: int, merge_iou: float = 1.0
) -> list[Found]:
    """Greedy NMS class by class, then box voting; a box may be kept for several classes.

    Args:
        boxes: `(B, N, 4)` xyxy. scores: `(B, N, C)`, 0..1.
        score: lowest score kept. nms_iou: IoU above which the weaker box of the same class goes.
        max_detections: boxes kept a picture.
        merge_iou: each box kept becomes the mean of the boxes of its class that overlap it by more than this, weighted
            by score and overlap; 1: it stays as it is. The `VOTERS` best candidates of a picture have a vote.

    Returns:
        For each picture boxes `(n, 4)`, scores `(n,)`, labels `(n,)` int64, best first.
    """
    limits = Limits(score, nms_iou, max_detections, merge_iou)
    if boxes.device.type == "cuda":
        return select_together(boxes, scores, limits)
    return [_select_one(own, rated, limits) for own, rated in zip(boxes, scores, strict=True)]


def select_together(boxes: Tensor, scores: Tensor, limits: Limits) -> list[Found]:
    """What `select` returns, for all pictures of a batch at once: a GPU is kept waiting three times a batch, not five
    times a picture."""
    flat = scores.flatten(1)
    values, order = flat.topk(min(limits.first, flat.shape[1]), 1)
    near = boxes.gather(1, (order // scores.shape[2])[..., None].expand(-1, -1, 4))
    labels = order % scores.shape[2]
    there = values > limits.score
    overlap = _overlaps(near, near)
    rivals = labels[:, :, None] == labels[:, None]
    keep = _greedy((overlap > limits.nms_iou) & rivals, there)
    keep &= keep.cumsum(1) <= limits.max_detections
    if limits.merge_iou < 1:
        near = _voted(near, values, there, overlap, rivals, limits.merge_iou)
    kept, more = torch.stack([keep.sum(1), (flat > limits.score).sum(1) > values.shape[1]]).tolist()
    columns = [column[keep].split(kept) for column in (near, values, labels)]
    return [
        _select_one(boxes[row], scores[row], limits) if more[row] and kept[row] < limits.max_detections else one
        for row, one in enumerate(zip(*columns, strict=True))
    ]


def _greedy(blocks: Tensor, there: Tensor) -> Tensor:
    """Greedy NMS as a fixed point: `blocks[:, i, j]` says that i, if it stays, drops the weaker j. After n rounds the
    first n are decided for good; a few rounds decide all but long chains."""
    blocks = blocks.triu(1)
    keep = there
    while True:
        free = there & ~(blocks & keep[:, :, None]).any(1)
        if torch.equal(free, keep):
            return keep
        keep = free


def _voted(near: Tensor, values: Tensor, there: Tensor, overlap: Tensor, rivals: Tensor, merge_iou: float) -> Tensor:
    """`_vote` for every candidate of every picture."""
    votes = (overlap.square() * (values * there)[:, None]).masked_fill_(~(rivals & (overlap > merge_iou)), 0.0)
    votes[:, :, VOTERS:] = 0.0
    votes.diagonal(dim1=1, dim2=2).zero_()
    own = values[..., None]
    return (votes @ near + own * near) / (votes.sum(2, keepdim=True) + own).clamp(min=TINY)


def _select_one(boxes: Tensor, scores: Tensor, limits: Limits) -> Found:
    """Greedy NMS never looks back: what it keeps of the best candidates stays kept whatever follows. So the best are
    tried first, and more only while they give too few: the result is that of all candidates, however many."""
    flat = scores.flatten()
    found = (flat > limits.score).nonzero().squeeze(1)
    candidates = flat[found]
    taken = limits.first
    while True:
        values, order = candidates.topk(min(taken, len(found)))
        index = found[order]
        near, labels = boxes[index // scores.shape[1]], index % scores.shape[1]
        keep = _nms_by_class(near, values, labels, limits.nms_iou)
        if len(keep) >= limits.max_detections or taken >= len(found):
            break
        taken *= 16
    keep = keep[: limits.max_detections]
    kept = _vote(near, values, labels, keep, limits.merge_iou) if limits.merge_iou < 1 else near[keep]
    return kept, values[keep], labels[keep]


def _vote(boxes: Tensor, scores: Tensor, labels: Tensor, keep: Tensor, merge_iou: float) -> Tensor:
    """Box voting (Gidaris and Komodakis, ICCV 2015, arXiv 1505.01749), with weights score * IoU^2.

    The neighbours that NMS drops see the same object from other cells and anchors: their mean lies closer to it.
    """
    near, alike, weight = boxes[:VOTERS], labels[:VOTERS], scores[:VOTERS]
    parts = []
    for rows in keep.split(ROWS):
        overlap = _overlaps(boxes[rows], near)
        votes = overlap.square().mul_(weight).mul_((overlap > merge_iou) & (labels[rows, None] == alike))
        votes.masked_fill_(rows[:, None] == torch.arange(len(near), device=rows.device), 0.0)
        own = scores[rows, None]  # of the box for itself: score * 1^2, also where it is empty
        parts.append((votes @ near + own * boxes[rows]) / (votes.sum(1, keepdim=True) + own))
    return torch.cat(parts) if parts else boxes[keep]


def _overlaps(first: Tensor, second: Tensor) -> Tensor:
    """IoU `(..., n, m)` of `(..., n, 4)` and `(..., m, 4)`, 0 of two empty boxes. Column by column and in place: four
    times as fast here as `torchvision.ops.box_iou`, whose innermost dimension has two elements."""
    a, b = first.movedim(-1, 0)[..., None].contiguous(), second.movedim(-1, 0)[..., None, :].contiguous()
    width = torch.minimum(a[2], b[2]).sub_(torch.maximum(a[0], b[0])).clamp_(min=0)
    height = torch.minimum(a[3], b[3]).sub_(torch.maximum(a[1], b[1])).clamp_(min=0)
    both = width.mul_(height)
    union = ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])).sub_(both)
    return both.div_(union).nan_to_num_(0.0)


def _nms_by_class(boxes: Tensor, scores: Tensor, labels: Tensor, nms_iou: float) -> Tensor:
    """Indices kept, best first, of boxes that come best first. Classes are told apart by shifting each one's boxes
    beyond the largest coordinate: that needs coordinates from 0 on, and more digits than float32 has where one box is
    huge. A processor compares each box kept with all that follow: of many, it takes the classes one by one."""
    if not len(boxes):
        return labels
    if len(boxes) > MANY and boxes.device.type == "cpu":
        classes = labels.argsort(stable=True).split(labels.bincount().tolist())
        keep = [own[nms(boxes[own], scores[own], nms_iou)] for own in classes]
        return torch.cat(keep).sort().values
    exact = boxes if boxes.device.type == "mps" else boxes.double()  # MPS has no float64
    low, high = exact.aminmax()
    return nms(exact - low + labels[:, None] * (high - low + 1), scores.to(exact.dtype), nms_iou)
