"""Cutting a map into windows for local attention: window, halo, biformer, acmix.

The windows and the heads share one axis, in front of a window's tokens, so that a mask or a
position bias of (1, windows * heads, n, M) holds for all images. Masks are numbers made by
arithmetic, not booleans: some ONNX runtimes know no booleans.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

# Added to a score, it makes the weight exactly 0. Finite, so that a row of nothing else is not NaN,
# and within the range of float16.
MASKED = -3e4


def pad_to_multiples(x: Tensor, window: Sequence[int]) -> Tensor:
    """Pad `(B, C, H, W)` with zeros at the bottom and the right, to multiples of `window`."""
    bottom, right = (-side % of for side, of in zip(x.shape[2:], window, strict=True))
    return F.pad(x, (0, right, 0, bottom)) if bottom or right else x


def to_windows(x: Tensor, window: Sequence[int], heads: int = 1) -> Tensor:
    """`(B, heads * d, rows * h, columns * w)` -> `(B, rows * columns * heads, h * w, d)`."""
    height, width = window
    x = x.unflatten(3, (-1, width)).unflatten(2, (-1, height)).unflatten(1, (heads, -1))
    return x.permute(0, 3, 5, 1, 4, 6, 2).flatten(4, 5).flatten(1, 3)


def from_windows(
    windows: Tensor, window: Sequence[int], size: Sequence[int], heads: int = 1
) -> Tensor:
    """Invert `to_windows` and `pad_to_multiples`, with `size` = (H, W) without the padding."""
    rows = -(-size[0] // window[0])
    x = windows.unflatten(2, tuple(window)).unflatten(1, (rows, -1, heads))
    x = x.permute(0, 3, 6, 1, 4, 2, 5)  # (B, heads, d, rows, h, columns, w)
    return x.flatten(5, 6).flatten(3, 4).flatten(1, 2)[:, :, : size[0], : size[1]]


def neighborhoods(x: Tensor, block: int, margin: int, heads: int) -> Tensor:
    """Cut out each block of b x b positions with the m positions around it.

    Args:
        x: `(B, heads * d, rows * b + 2 m, columns * b + 2 m)`, the margin included.
        block: b.
        margin: m.
        heads: as in `to_windows`.

    Returns:
        `(B, rows * columns * heads, (b + 2 m)^2, d)`.
    """
    cut = F.unfold(x, block + 2 * margin, stride=block)
    cut = cut.unflatten(1, (heads, -1, (block + 2 * margin) ** 2))
    return cut.permute(0, 4, 1, 3, 2).flatten(1, 2)


def locate(position: Sequence[int], window: Sequence[int], width: int) -> tuple[int, int]:
    """Return the number of the window with the (row, column) `position`, and the index inside it.

    Args:
        position: (row, column).
        window: (height, width) of a window.
        width: of the map, without the padding.
    """
    (row, y), (column, x) = (divmod(at, side) for at, side in zip(position, window, strict=True))
    return row * -(-width // window[1]) + column, y * window[1] + x


def window_means(x: Tensor, window: Sequence[int]) -> Tensor:
    """Means over windows without the padding, `(B, C, H, W)` -> `(B, C, rows, columns)`.

    An average pool with `ceil_mode`, which some ONNX runtimes compute otherwise.
    """
    means = F.avg_pool2d(pad_to_multiples(x, window), tuple(window))
    rows, columns = (
        (side - of * torch.arange(-(-side // of), device=x.device)).clamp(max=of) / of
        for side, of in zip(x.shape[2:], window, strict=True)
    )
    return means / (rows[:, None] * columns).to(x.dtype)


def outside(positions: Tensor, side: int) -> Tensor:
    """1 for each integer position outside of `range(side)`, else 0, float32."""
    inside = positions.clamp(0, side - 1)
    return (positions - inside).abs().clamp(max=1).float()


def padding_of_windows(size: Sequence[int], window: Sequence[int], device: torch.device) -> Tensor:
    """1 where `pad_to_multiples` added a position, else 0: `(windows, h * w)`, float32."""
    axes = (
        outside(torch.arange(side + -side % of, device=device), side).unflatten(0, (-1, of))
        for side, of in zip(size, window, strict=True)
    )
    return either(*axes)


def either(rows: Tensor, columns: Tensor) -> Tensor:
    """Combine 0 / 1 flags of rows `(R, a, ...)` and columns `(K, b, ...)` to those of windows.

    Returns:
        1 where the row's or the column's flag is 1: `(R * K, a * b, ...)`, where each further axis
        is combined in the same way.
    """
    axes = rows.ndim
    grown = rows.reshape([side for length in rows.shape for side in (length, 1)])
    flags = torch.maximum(grown, columns.reshape([n for side in columns.shape for n in (1, side)]))
    for axis in range(axes):
        flags = flags.flatten(axis, axis + 1)
    return flags
