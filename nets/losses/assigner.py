"""Target assignment: which predictions learn which object.

Vectorized over images, objects, anchors and grid cells. In the shapes, M is the number of objects
of an image (padded), A that of anchors, K that of candidates per object, and S that of grid cells
per object.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from nets.ops.boxes import shape_iou
from nets.yolo.box_coder import STRIDES, BoxCoder
from utils.core.devices import cached_constant
from utils.core.schema import LossConfig

MIN_SIDE = 1e-3  # pixels


@dataclass(frozen=True)
class Candidates:
    """The predictions that may learn each object.

    Attributes:
        index: int64 `(B, M, K)`, index among the N predictions of the image, in the order of
            `BoxCoder.make_grid`.
        valid: bool `(B, M, K)`, whether the candidate counts.
    """

    index: Tensor
    valid: Tensor


def find_candidates(
    boxes: Tensor,
    is_object: Tensor,
    map_sizes: list[tuple[int, int]],
    coder: BoxCoder,
    config: LossConfig,
) -> Candidates:
    """Select anchors by the shape of the object and grid cells by its center.

    Anchors, by `loss.assign`: best: the one with the highest shape IoU (YOLOv3, the reference
    implementation); iou: also those above `anchor_iou` (Darknet's `iou_thresh`); ratio and
    aligned: those whose sides differ by less than a factor `anchor_ratio` (Ultralytics' YOLOv5).
    The best one always counts, so that no object is lost because no anchor fits.

    Grid cells: the one that holds the center; with ratio and aligned also the nearest neighbors in
    x and in y, if the decoding reaches that far (`scale_x_y` of at least 2).

    Args:
        boxes: `(B, M, 4)`, xyxy in input pixels.
        is_object: bool `(B, M)`, False for padding.
        map_sizes: (height, width) of each head's map.
        coder: anchors, masks and the reach of the decoding.
        config: `assign`, `anchor_iou` and `anchor_ratio` are read.
    """
    center = (boxes[..., :2] + boxes[..., 2:]) / 2
    matching = _matching_anchors(boxes[..., 2:] - boxes[..., :2], coder, config)
    with_neighbors = config.assign in ("ratio", "aligned") and coder.scale_x_y >= 2
    indices, valids = [], []
    first = 0  # index of the head's first prediction
    for (height, width), stride, mask in zip(map_sizes, STRIDES, coder.masks, strict=True):
        cells, on_map = _nearest_cells(center / stride, height, width, with_neighbors)
        cell_index = cells[..., 1] * width + cells[..., 0]  # (B, M, S)
        anchor_start = first + height * width * torch.arange(len(mask), device=boxes.device)
        index = anchor_start[:, None] + cell_index[:, :, None]  # (B, M, A, S)
        head_matching = matching.index_select(2, cached_constant(mask, boxes.device, torch.int64))
        valid = head_matching[..., None] & on_map[:, :, None]
        indices.append(index.flatten(2))
        valids.append(valid.flatten(2))
        first += len(mask) * height * width
    return Candidates(torch.cat(indices, 2), torch.cat(valids, 2) & is_object[..., None])


def keep_aligned(candidates: Candidates, alignment: Tensor, top_k: int) -> Candidates:
    """Keep the `top_k` best aligned candidates of each object.

    Feng et al., TOOD, ICCV 2021, arXiv 2108.07755.

    Args:
        candidates: the candidates, K per object.
        alignment: `(B, M, K)`, class score and IoU combined; higher is better.
        top_k: most candidates per object.
    """
    ranking = alignment.masked_fill(~candidates.valid, -1.0)
    best = ranking.topk(min(top_k, ranking.shape[2]), dim=2).indices
    keep = torch.zeros_like(candidates.valid).scatter_(2, best, True)
    return Candidates(candidates.index, candidates.valid & keep)


def _matching_anchors(sizes: Tensor, coder: BoxCoder, config: LossConfig) -> Tensor:
    """Object sizes `(B, M, 2)` -> bool `(B, M, A)`, the anchors whose shape fits."""
    anchors = coder.anchors
    sizes = sizes[..., None, :].clamp(min=MIN_SIDE)
    iou = shape_iou(sizes, anchors)
    # Darknet's masks leave one anchor out: the best must be one that a head has
    used = {index for mask in coder.masks for index in mask}
    unused = [index for index in range(len(anchors)) if index not in used]
    iou.index_fill_(-1, cached_constant(unused, iou.device, torch.int64), -1.0)
    best = iou == iou.amax(-1, keepdim=True)
    if config.assign == "best":
        return best
    if config.assign == "iou":
        return best | (iou > config.anchor_iou)
    ratio = torch.maximum(sizes / anchors, anchors / sizes).amax(-1)
    return best | (ratio < config.anchor_ratio)


def _nearest_cells(
    center: Tensor, height: int, width: int, with_neighbors: bool
) -> tuple[Tensor, Tensor]:
    """Centers `(B, M, 2)` in grid cells -> (x, y) `(B, M, S, 2)`, and whether on the map."""
    last = cached_constant((width - 1, height - 1), center.device, torch.int64)
    center_cell = center.floor().long().clamp(min=torch.zeros_like(last), max=last)
    if not with_neighbors:
        return center_cell[:, :, None], torch.ones_like(center_cell[:, :, :1], dtype=torch.bool)
    step = torch.where(center - center_cell < 0.5, -1, 1)
    axes = torch.eye(2, dtype=torch.long, device=center.device)
    neighbors = [center_cell + step * axes[0], center_cell + step * axes[1]]
    cells = torch.stack([center_cell, *neighbors], 2)
    on_map = ((cells >= 0) & (cells <= last)).all(-1)
    return cells.clamp(min=torch.zeros_like(last), max=last), on_map
