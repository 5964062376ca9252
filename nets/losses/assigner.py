"""Which predictions learn which object: target assignment, vectorized over images, objects, anchors and cells."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nets.yolo.box_coder import STRIDES, BoxCoder
from utils.core.devices import cached_constant
from utils.core.schema import LossConfig


@dataclass(frozen=True)
class Candidates:
    """Predictions that may learn an object.

    Attributes:
        index: int64 `(B, M, K)`, position among the N predictions (order of `BoxCoder.cells`).
        valid: bool `(B, M, K)`, whether the candidate counts.
    """

    index: Tensor
    valid: Tensor


def candidates(
    boxes: Tensor, present: Tensor, shapes: list[tuple[int, int]], coder: BoxCoder, loss: LossConfig
) -> Candidates:
    """Anchors by shape, cells by position.

    Shape rules (`loss.assign`): best: the one anchor of highest shape IoU (YOLOv3, the reference); iou: also every
    anchor above `anchor_iou` (Darknet's `iou_thresh`); ratio and aligned: every anchor whose sides are within a factor
    `anchor_ratio` (Ultralytics' YOLOv5), and always the best one, so that no object is lost to anchors that do not fit.
    Cells: the one that holds the center; with ratio and aligned also the nearest neighbor in x and in y, if the
    decoding can reach across (`scale_x_y` of 2).

    Args:
        boxes: `(B, M, 4)` xyxy, input pixels. present: bool `(B, M)`. shapes: (height, width) of each map.
    """
    center = (boxes[..., :2] + boxes[..., 2:]) / 2
    matched = _match_shapes(boxes[..., 2:] - boxes[..., :2], coder, loss)
    neighbors = loss.assign in ("ratio", "aligned") and coder.scale_x_y >= 2
    indices, valids, start = [], [], 0
    for (height, width), stride, mask in zip(shapes, STRIDES, coder.masks, strict=True):
        cell, inside = _cells_of(center / stride, height, width, neighbors)
        position = cell[..., 1] * width + cell[..., 0]  # (B, M, O)
        first = start + height * width * torch.arange(len(mask), device=boxes.device)
        indices.append((first[:, None] + position[:, :, None]).flatten(2))
        shaped = matched.index_select(2, cached_constant(mask, boxes.device, torch.int64))
        valids.append((shaped[..., None] & inside[:, :, None]).flatten(2))
        start += len(mask) * height * width
    return Candidates(torch.cat(indices, 2), torch.cat(valids, 2) & present[..., None])


def keep_aligned(found: Candidates, alignment: Tensor, top_k: int) -> Candidates:
    """Of each object keep the `top_k` best aligned candidates (Feng et al., TOOD, ICCV 2021, arXiv 2108.07755).

    Args:
        alignment: `(B, M, K)`, class score and IoU combined, higher is better.
    """
    ranked = alignment.masked_fill(~found.valid, -1.0)
    best = ranked.topk(min(top_k, ranked.shape[2]), dim=2).indices
    chosen = torch.zeros_like(found.valid).scatter_(2, best, True)
    return Candidates(found.index, found.valid & chosen)


def _match_shapes(sizes: Tensor, coder: BoxCoder, loss: LossConfig) -> Tensor:
    """Object sizes `(B, M, 2)` against the A anchors -> bool `(B, M, A)`."""
    anchors = coder.anchors
    sizes = sizes[..., None, :].clamp(min=1e-3)
    overlap = torch.minimum(sizes, anchors).prod(-1)
    iou = overlap / (sizes.prod(-1) + anchors.prod(-1) - overlap)
    unused = cached_constant(_unused(coder), iou.device, torch.int64)
    iou.index_fill_(
        -1, unused, -1.0
    )  # Darknet's masks leave one out: the best anchor is one that a head has
    best = iou == iou.amax(-1, keepdim=True)
    if loss.assign == "best":
        return best
    if loss.assign == "iou":
        return best | (iou > loss.anchor_iou)
    ratio = torch.maximum(sizes / anchors, anchors / sizes).amax(-1)
    return best | (ratio < loss.anchor_ratio)


def _unused(coder: BoxCoder) -> list[int]:
    return [
        index
        for index in range(len(coder.anchors))
        if not any(index in mask for mask in coder.masks)
    ]


def _cells_of(center: Tensor, height: int, width: int, neighbors: bool) -> tuple[Tensor, Tensor]:
    """Centers `(B, M, 2)` in cells -> cells x, y `(B, M, O, 2)` and whether they are on the map `(B, M, O)`."""
    limit = cached_constant((width - 1, height - 1), center.device, torch.int64)
    own = center.floor().long().clamp(min=torch.zeros_like(limit), max=limit)
    if not neighbors:
        return own[:, :, None], torch.ones_like(own[:, :, :1], dtype=torch.bool)
    step = torch.where(center - own < 0.5, -1, 1)
    axes = torch.eye(2, dtype=torch.long, device=center.device)
    cell = torch.stack([own, own + step * axes[0], own + step * axes[1]], 2)
    inside = ((cell >= 0) & (cell <= limit)).all(-1)
    return cell.clamp(min=torch.zeros_like(limit), max=limit), inside
