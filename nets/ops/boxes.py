"""Overlap of boxes, for NumPy arrays and PyTorch tensors alike.

Boxes are (x1, y1, x2, y2). `intersection` and `iou` expect the coordinates on the first axis,
`(4, ...)`, so that each coordinate is contiguous in memory; the other axes broadcast.
"""

import math
from types import ModuleType
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

Array = TypeVar("Array", np.ndarray, Tensor)

MIN_UNION = float(np.finfo(np.float32).tiny)  # two empty boxes have an IoU of 0, not 0 / 0
MIN_SIDE = 1e-2  # pixels; keeps the gradient of CIoU's aspect term finite
EPS = 1e-7


def shared_length(low: Array, high: Array, other_low: Array, other_high: Array) -> Array:
    """Return the length of the overlap of intervals, which broadcast; 0 if disjoint."""
    xp = _namespace(low)
    length = xp.minimum(high, other_high)
    length -= xp.maximum(low, other_low)
    return _at_least(length, 0)


def intersection(first: Array, second: Array) -> Array:
    """Return the area shared by boxes `(4, ...)`, which broadcast; 0 if disjoint."""
    area = shared_length(first[0], first[2], second[0], second[2])
    area *= shared_length(first[1], first[3], second[1], second[3])
    return area


def iou(first: Array, second: Array) -> Array:
    """Return the IoU of boxes `(4, ...)`, which broadcast; 0 for two empty boxes."""
    shared = intersection(first, second)
    union = _area(first) + _area(second)
    union -= shared
    shared /= _at_least(union, MIN_UNION)
    return shared


def pairwise_iou(first: Array, second: Array) -> Array:
    """Return the IoU of every box of `first` with every box of `second`.

    Unlike `torchvision.ops.box_iou` in the oldest supported version (0.22), this supports batches.

    Args:
        first: boxes `(..., n, 4)`.
        second: boxes `(..., m, 4)`.

    Returns:
        IoU `(..., n, m)`, 0..1.
    """
    return iou(coordinates_first(first)[..., None], coordinates_first(second)[..., None, :])


def shape_iou(first: Array, second: Array) -> Array:
    """Return the IoU of boxes that share a corner.

    Args:
        first: positive widths and heights `(..., 2)`, broadcast against `second`.
        second: positive widths and heights `(..., 2)`.

    Returns:
        IoU `(...)`, 0..1.
    """
    shared = _namespace(first).minimum(first, second).prod(-1)
    return shared / (first.prod(-1) + second.prod(-1) - shared)


def complete_iou(boxes: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the IoU and CIoU of pairs of boxes.

    Values and gradients are finite even for empty boxes.

    CIoU: Zheng et al., Distance-IoU Loss, AAAI 2020, arXiv 1911.08287.

    Args:
        boxes: float32 `(P, 4)`, xyxy in pixels.
        targets: float32 `(P, 4)`, xyxy in pixels; `targets[i]` belongs to `boxes[i]`.

    Returns:
        IoU `(P,)`, 0..1, and CIoU `(P,)`, at most 1.
    """
    size = (boxes[:, 2:] - boxes[:, :2]).clamp(min=MIN_SIDE)
    target_size = (targets[:, 2:] - targets[:, :2]).clamp(min=MIN_SIDE)
    shared = shared_length(boxes[:, :2], boxes[:, 2:], targets[:, :2], targets[:, 2:]).prod(1)
    overlap = shared / (size.prod(1) + target_size.prod(1) - shared + EPS)
    hull = torch.maximum(boxes[:, 2:], targets[:, 2:]) - torch.minimum(boxes[:, :2], targets[:, :2])
    offset = (boxes[:, :2] + boxes[:, 2:] - targets[:, :2] - targets[:, 2:]) / 2
    distance = offset.square().sum(1) / (hull.square().sum(1) + EPS)
    angle = torch.atan2(target_size[:, 0], target_size[:, 1]) - torch.atan2(size[:, 0], size[:, 1])
    aspect = 4 / math.pi**2 * angle.square()
    with torch.no_grad():
        trade_off = aspect / (1 - overlap + aspect + EPS)
    return overlap, overlap - distance - trade_off * aspect


def coordinates_first(boxes: Array) -> Array:
    """Return boxes `(..., 4)` as a contiguous `(4, ...)`."""
    if isinstance(boxes, np.ndarray):
        return np.ascontiguousarray(boxes.transpose(-1, *range(boxes.ndim - 1)))
    return boxes.movedim(-1, 0).contiguous()


def _area(boxes: Array) -> Array:
    return (boxes[2] - boxes[0]) * (boxes[3] - boxes[1])


def _at_least(array: Array, limit: float) -> Array:
    """Clamp in place: allocating large temporaries costs more than the arithmetic."""
    if isinstance(array, np.ndarray):
        return np.maximum(array, limit, out=array)
    return array.clamp_(limit)


def _namespace(array: Array) -> ModuleType:
    return np if isinstance(array, np.ndarray) else torch
