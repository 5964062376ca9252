"""Boxes and scores -> detections: non-maximum suppression and box voting."""

import torch
from torch import Tensor

from nets.ops.nms_numpy import VOTERS, Limits, select_one

TINY = 1e-12  # candidates of score 0 are not kept, but must not divide by it

Found = tuple[
    Tensor, Tensor, Tensor
]  # of an image: boxes (n, 4), scores (n,), labels (n,) int64, best first


@torch.no_grad()
def select(
    boxes: Tensor,
    scores: Tensor,
    score: float,
    nms_iou: float,
    max_detections: int,
    vote_iou: float = 1.0,
) -> list[Found]:
    """Greedy NMS class by class, then box voting; a box may be kept for several classes.

    Args:
        boxes: `(B, N, 4)` xyxy. scores: `(B, N, C)`, 0..1.
        score: lowest score kept. nms_iou: IoU above which the weaker box of the same class goes.
        max_detections: boxes kept a picture.
        vote_iou: each box kept becomes the mean of the boxes of its class that overlap it by more than this, weighted
            by score and overlap; 1: it stays as it is. The `VOTERS` best candidates of an image have a vote.

    Returns:
        For each image boxes `(n, 4)`, scores `(n,)`, labels `(n,)` int64, best first.
    """
    limits = Limits(score, nms_iou, max_detections, vote_iou)
    if boxes.device.type == "cuda":
        return select_together(boxes, scores, limits)
    return [_alone(own, rated, limits) for own, rated in zip(boxes, scores, strict=True)]


def select_together(boxes: Tensor, scores: Tensor, limits: Limits) -> list[Found]:
    """What `select` returns, for all images of a batch at once: a GPU is kept waiting three times a batch, not five
    times a picture.
    """
    flat = scores.flatten(1)
    values, order = flat.topk(min(limits.first, flat.shape[1]), 1)
    near = boxes.gather(1, (order // scores.shape[2])[..., None].expand(-1, -1, 4))
    labels = order % scores.shape[2]
    there = values > limits.score
    overlap = _overlaps(near, near)
    rivals = labels[:, :, None] == labels[:, None]
    keep = _greedy((overlap > limits.nms_iou) & rivals, there)
    keep &= keep.cumsum(1) <= limits.max_detections
    if limits.vote_iou < 1:
        near = _voted(near, values, there, overlap, rivals, limits.vote_iou)
    kept, more = torch.stack([keep.sum(1), (flat > limits.score).sum(1) > values.shape[1]]).tolist()
    columns = [column[keep].split(kept) for column in (near, values, labels)]
    return [
        _alone(boxes[row], scores[row], limits)
        if more[row] and kept[row] < limits.max_detections
        else one
        for row, one in enumerate(zip(*columns, strict=True))
    ]


def _greedy(blocks: Tensor, there: Tensor) -> Tensor:
    """Greedy NMS as a fixed point: `blocks[:, i, j]` says that i, if it stays, drops the weaker j. After n rounds the
    first n are decided for good; a few rounds decide all but long chains.
    """
    blocks = blocks.triu(1)
    keep = there
    while True:
        free = there & ~(blocks & keep[:, :, None]).any(1)
        if torch.equal(free, keep):
            return keep
        keep = free


def _voted(
    near: Tensor, values: Tensor, there: Tensor, overlap: Tensor, rivals: Tensor, vote_iou: float
) -> Tensor:
    """`nets.ops.nms_numpy`'s voting for every candidate of every picture."""
    votes = (overlap.square() * (values * there)[:, None]).masked_fill_(
        ~(rivals & (overlap > vote_iou)), 0.0
    )
    votes[:, :, VOTERS:] = 0.0
    votes.diagonal(dim1=1, dim2=2).zero_()
    own = values[..., None]
    return (votes @ near + own * near) / (votes.sum(2, keepdim=True) + own).clamp(min=TINY)


def _alone(boxes: Tensor, scores: Tensor, limits: Limits) -> Found:
    """One image, in main memory, wherever its boxes are."""
    found = select_one(boxes.cpu().numpy(), scores.cpu().numpy(), limits)
    near, values, labels = (torch.from_numpy(column).to(boxes.device) for column in found)
    return near, values, labels


def _overlaps(first: Tensor, second: Tensor) -> Tensor:
    """IoU `(..., n, m)` of `(..., n, 4)` and `(..., m, 4)`, 0 of two empty boxes;
    `torchvision.ops.box_iou` takes no batches in the oldest version that is supported (0.22).
    """
    a, b = (
        first.movedim(-1, 0)[..., None].contiguous(),
        second.movedim(-1, 0)[..., None, :].contiguous(),
    )
    width = torch.minimum(a[2], b[2]).sub_(torch.maximum(a[0], b[0])).clamp_(min=0)
    height = torch.minimum(a[3], b[3]).sub_(torch.maximum(a[1], b[1])).clamp_(min=0)
    both = width.mul_(height)
    union = ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])).sub_(both)
    return both.div_(union).nan_to_num_(0.0)
