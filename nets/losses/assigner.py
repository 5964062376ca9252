"""Target assignment: which predictions learn which object.

Vectorized over images, objects, anchors and grid cells.

Shapes: B images, M objects per image (padded), A anchors, S grid cells per object, K candidates per
object.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from nets.ops.boxes import shape_iou
from nets.yolo.box_coder import BoxCoder
from utils.core.devices import cached_constant
from utils.core.schema import LossConfig

MIN_SIDE = 1e-3  # pixels


@dataclass(frozen=True, eq=False)
class Candidates:
    """The predictions that may learn each object.

    Attributes:
        index: int64 `(B, M, K)`, index among the N predictions of the image, in the order of
            `BoxCoder.make_grid`.
        valid: bool `(B, M, K)`, False for candidates to ignore.
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

    Anchors depend on `loss.assign`:

    - best: the anchor with the highest shape IoU (YOLOv3, the reference implementation);
    - iou: also those above `anchor_iou` (Darknet's `iou_thresh`);
    - ratio, aligned: those whose sides differ by less than a factor of `anchor_ratio` (Ultralytics'
      YOLOv5).

    The best anchor is always included, so that an object that fits no anchor is still learned.

    Grid cells: the one that contains the center; with ratio and aligned also the nearest neighbor
    in x and in y, if the decoding reaches that far (`scale_x_y` of at least 2).

    Args:
        boxes: `(B, M, 4)`, xyxy in input pixels.
        is_object: bool `(B, M)`, False for padding.
        map_sizes: (height, width) of each head's map.
        coder: the network's box coder; its anchors, masks and `scale_x_y` are read.
        config: `assign`, `anchor_iou` and `anchor_ratio` are read.
    """
    center = (boxes[..., :2] + boxes[..., 2:]) / 2
    matching = _matching_anchors(boxes[..., 2:] - boxes[..., :2], coder, config)
    with_neighbors = config.assign in ("ratio", "aligned") and coder.scale_x_y >= 2
    indices, valids = [], []
    first = 0  # index of the head's first prediction
    heads = zip(map_sizes, coder.strides, coder.masks, strict=True)
    for (height, width), stride, mask in heads:
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
        candidates: K candidates per object.
        alignment: `(B, M, K)`, class score and IoU combined; higher is better.
        top_k: maximum number of candidates per object.
    """
    ranking = alignment.masked_fill(~candidates.valid, -1.0)
    best = ranking.topk(min(top_k, ranking.shape[2]), dim=2).indices
    keep = torch.zeros_like(candidates.valid).scatter_(2, best, True)
    return Candidates(candidates.index, candidates.valid & keep)


def _matching_anchors(sizes: Tensor, coder: BoxCoder, config: LossConfig) -> Tensor:
    """Object sizes `(B, M, 2)`, pixels -> bool `(B, M, A)`, whether each anchor's shape fits."""
    anchors = coder.anchors
    sizes = sizes[..., None, :].clamp(min=MIN_SIDE)
    iou = shape_iou(sizes, anchors)
    # Darknet's masks leave one anchor out: the best must be one that a head uses
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
    """Return the grid cells nearest to each center.

    Args:
        center: `(B, M, 2)`, (x, y) in units of grid cells.
        height: rows of the map.
        width: columns of the map.
        with_neighbors: return the nearest neighbor in x and in y, too (S = 3 instead of 1).

    Returns:
        (column, row), int64 `(B, M, S, 2)`, clamped to the map, and whether the cell lies on the
        map, bool `(B, M, S)`.
    """
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
