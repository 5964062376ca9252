"""ONNX for operators that PyTorch's exporter writes in a way that only some runtimes take.

Adaptive pooling becomes two matrix products; PyTorch gathers every window with `GatherND`, which
OpenCV 4 lacks. Upsampling to a size, by which nothing is divided evenly, becomes two `Gather`:
OpenCV takes no `Resize` to a computed shape. OpenCV computes `HardSigmoid` wrongly; it becomes a
`Clip`. Bilinear sampling becomes four `Gather` of whole positions: OpenCV 4 and NCNN's
importer lack `GridSample`, and ONNX Runtime takes three to five times as long for it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

BILINEAR = 0  # numbers of PyTorch's operator
ZEROS, BORDER, REFLECTION = 0, 1, 2


def _adaptive_pool(features: Any, output_size: Sequence[int]) -> Any:
    """`rows @ features @ columns`, or a plain average if all windows are equal."""
    from onnxscript import opset18 as op

    height, width = features.shape[-2:]
    down, across = output_size
    if height % down == 0 and width % across == 0:
        kernel = (height // down, width // across)
        return op.AveragePool(features, kernel_shape=kernel, strides=kernel)
    rows, columns = pooling_matrix(height, down), pooling_matrix(width, across).T
    return op.MatMul(_constant(op, rows), op.MatMul(features, _constant(op, columns)))


def _constant(op: Any, values: np.ndarray) -> Any:
    import onnx

    return op.Constant(value=onnx.numpy_helper.from_array(np.ascontiguousarray(values)))


def pooling_matrix(inputs: int, outputs: int) -> np.ndarray:
    """The matrix of adaptive average pooling along one axis, float32 `(outputs, inputs)`.

    Row i is the mean over the positions from floor(i * inputs / outputs) to
    ceil((i + 1) * inputs / outputs), the last not included.

    Args:
        inputs: size of the map.
        outputs: size of the pooled map.
    """
    matrix = np.zeros((outputs, inputs), np.float32)
    for index, row in enumerate(matrix):
        start, end = index * inputs // outputs, -(-(index + 1) * inputs // outputs)
        row[start:end] = 1 / (end - start)
    return matrix


def _upsample_nearest(
    features: Any, output_size: Sequence[int] | None, scale_factors: Sequence[float] | None
) -> Any:
    from onnxscript import opset18 as op

    sides = features.shape[-2:]
    sizes = output_size or [
        int(side * scale) for side, scale in zip(sides, scale_factors or (), strict=True)
    ]
    if any(size % side for side, size in zip(sides, sizes, strict=True)):
        for axis, side, size in zip((2, 3), sides, sizes, strict=True):
            cells = np.arange(size) * side // size
            features = op.Gather(features, _constant(op, cells), axis=axis)
        return features
    scales = [1, 1, *(size // side for side, size in zip(sides, sizes, strict=True))]
    return op.Resize(
        features,
        None,
        _constant(op, np.array(scales, np.float32)),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


def _hard_sigmoid(features: Any) -> Any:
    from onnxscript import opset18 as op

    sixth, half = np.array(1 / 6, np.float32), np.array(0.5, np.float32)
    scaled = op.Add(op.Mul(features, _constant(op, sixth)), _constant(op, half))
    low, high = np.array(0, np.float32), np.array(1, np.float32)
    return op.Clip(scaled, _constant(op, low), _constant(op, high))


def _grid_sample(features: Any, grid: Any, mode: int, padding: int, align_corners: bool) -> Any:
    """The four neighbors of each position, weighted by their distance."""
    from onnxscript import opset18 as op

    if mode != BILINEAR or padding == REFLECTION:
        names = (("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection"))
        attributes = {"mode": names[0][mode], "padding_mode": names[1][padding]}
        return op.GridSample(features, grid, align_corners=int(align_corners), **attributes)
    channels, height, width = features.shape[1:]
    ring = int(padding == ZEROS)
    if ring:
        features = op.Pad(features, _constant(op, np.array([0, 0, 1, 1, 0, 0, 1, 1])))
        height, width = height + 2, width + 2
    rows, columns = grid.shape[1:3]
    left, right_share = _cells(op, grid, 0, width, ring, align_corners)
    top, bottom_share = _cells(op, grid, 1, height, ring, align_corners)
    first = _first_cells(op, left, top, width, height * width)
    cells = op.Reshape(features, _constant(op, np.array([0, channels, height * width])))
    cells = op.Transpose(cells, perm=(0, 2, 1))
    cells = op.Reshape(cells, _constant(op, np.array([-1, channels])))
    right, below = int(width > 1), width * int(height > 1)

    def row_of_two(offset: int) -> Any:
        start, end = (_gather(op, cells, first, offset + step) for step in (0, right))
        return _blend(op, start, end, right_share)

    sampled = _blend(op, row_of_two(0), row_of_two(below), bottom_share)
    sampled = op.Transpose(sampled, perm=(0, 2, 1))
    return op.Reshape(sampled, _constant(op, np.array([0, channels, rows, columns])))


def _cells(
    op: Any, grid: Any, axis: int, size: int, ring: int, align_corners: bool
) -> tuple[Any, Any]:
    """The cell left of (above) each position, `(N, P)`, and the share of the next, `(N, P, 1)`.

    Args:
        op: ONNX's operators.
        grid: positions `(N, rows, columns, 2)`, x and y, -1 to 1.
        axis: 0 for x, 1 for y.
        size: cells along the axis, including the ring.
        ring: width of the ring of zeros around the map.
        align_corners: -1 and 1 are the centers of the outer cells, not their edges.
    """
    inside = size - 2 * ring
    scale = (inside - 1) / 2 if align_corners else inside / 2
    numbers = op.Gather(grid, _constant(op, np.array(axis)), axis=3)
    numbers = op.Reshape(numbers, _constant(op, np.array([0, -1])))
    middle = np.array((inside - 1) / 2 + ring, np.float32)
    position = op.Mul(numbers, _constant(op, np.array(scale, np.float32)))
    position = op.Add(position, _constant(op, middle))
    last, low = np.array(size - 1, np.float32), np.array(0, np.float32)
    position = op.Clip(position, _constant(op, low), _constant(op, last))
    start = op.Min(op.Floor(position), _constant(op, np.array(max(size - 2, 0), np.float32)))
    return start, op.Unsqueeze(op.Sub(position, start), _constant(op, np.array([2])))


def _first_cells(op: Any, left: Any, top: Any, width: int, cells: int) -> Any:
    """The index of the upper left cell among the cells of all images, float32 `(N, P)`."""
    start, end = (_constant(op, np.array([index])) for index in (0, 1))
    one_each = op.Slice(left, start, end, end)  # OpenCV 4 fails on a `Gather` of a reused matrix
    zeros = op.Mul(one_each, _constant(op, np.array(0, np.float32)))
    ones = op.Add(zeros, _constant(op, np.array(1, np.float32)))
    image = op.CumSum(ones, _constant(op, np.array(0)), exclusive=1)  # 0, 1, .. of any batch size
    start = op.Mul(image, _constant(op, np.array(cells, np.float32)))
    above = op.Mul(top, _constant(op, np.array(width, np.float32)))
    return op.Add(op.Add(above, left), start)


def _gather(op: Any, cells: Any, first: Any, offset: int) -> Any:
    index = op.Add(first, _constant(op, np.array(offset, np.float32)))
    return op.Gather(cells, op.Cast(index, to=7), axis=0)  # 7: int64


def _blend(op: Any, start: Any, end: Any, share: Any) -> Any:
    return op.Add(start, op.Mul(op.Sub(end, start), share))


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten._adaptive_avg_pool2d.default: _adaptive_pool,
    torch.ops.aten.grid_sampler.default: _grid_sample,
    torch.ops.aten.hardsigmoid.default: _hard_sigmoid,
    torch.ops.aten.upsample_nearest2d.vec: _upsample_nearest,
}
