"""Layers and functions that the blocks share: norms, widths, precision, tokens, attention products.

Shapes: B images, C channels, H x W positions, N = H * W.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utils.core.errors import UserError

# Evaluated on import: older versions of PyTorch cannot compile this call.
AUTOCAST_DEVICES = [
    name for name in ("cpu", "cuda", "mps", "xpu") if torch.amp.is_autocast_available(name)
]


class _SingleValueNorm:
    """Makes batch normalization accept one value per channel in training.

    A batch of one pooled vector, or of one 1 x 1 map, has no variance, and PyTorch raises. In that
    case, this layer uses its running statistics and does not update them.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:  # type: ignore[attr-defined]
            norm: nn.BatchNorm2d = self  # type: ignore[assignment]
            return F.batch_norm(
                x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps
            )
        return super().forward(x)  # type: ignore[misc]


class BatchNorm1d(_SingleValueNorm, nn.BatchNorm1d):
    """`nn.BatchNorm1d` that accepts one value per channel in training."""


class BatchNorm2d(_SingleValueNorm, nn.BatchNorm2d):
    """`nn.BatchNorm2d` that accepts one value per channel in training."""


class BatchNorm3d(_SingleValueNorm, nn.BatchNorm3d):
    """`nn.BatchNorm3d` that accepts one value per channel in training."""


class GroupNorm(nn.GroupNorm):
    """`nn.GroupNorm` that accepts one value per group: the result is the bias.

    PyTorch raises if a batch holds one value per group in all, and not if it holds two images.
    """

    def forward(self, x: Tensor) -> Tensor:
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


def conv_norm_act(
    inputs: int,
    outputs: int,
    kernel_size: int = 1,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = False,
    activation: nn.Module | None = None,
) -> list[nn.Module]:
    """Return a convolution, batch normalization and an activation, for an `nn.Sequential`.

    Args:
        inputs: number of input channels.
        outputs: number of output channels.
        kernel_size: odd; at stride 1, the padding keeps H and W.
        stride: stride of the convolution.
        dilation: dilation of the convolution.
        groups: groups of the convolution.
        bias: add a bias to the convolution; the normalization cancels it.
        activation: applied last; None: ReLU.
    """
    padding = dilation * (kernel_size // 2)
    conv = nn.Conv2d(inputs, outputs, kernel_size, stride, padding, dilation, groups, bias)
    return [conv, BatchNorm2d(outputs), activation or nn.ReLU()]


def depthwise(channels: int, height: int, width: int, dilation: int = 1) -> nn.Conv2d:
    """Return a depthwise convolution with biases that keeps H and W.

    Args:
        channels: C.
        height: rows of the kernel, odd.
        width: columns of the kernel, odd.
        dilation: of both axes.
    """
    padding = (dilation * (height // 2), dilation * (width // 2))
    return nn.Conv2d(
        channels, channels, (height, width), 1, padding, dilation=dilation, groups=channels
    )


def channel_mlp(channels: int, reduction: int, bias: bool = True) -> nn.Sequential:
    """Return two 1x1 convolutions with a ReLU between them, C -> max(C // reduction, 1) -> C."""
    hidden = reduced_channels(channels, reduction)
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 1, bias=bias),
        nn.ReLU(),
        nn.Conv2d(hidden, channels, 1, bias=bias),
    )


def reduced_channels(channels: int, reduction: int) -> int:
    """Return `channels // reduction`, at least 1."""
    return max(channels // reduction, 1)


def fit_groups(groups: int, *widths: int) -> int:
    """Return the largest divisor of `groups` that divides every width."""
    return math.gcd(groups, *widths)


def check_heads(option: str, heads: int, channels: int) -> int:
    """Return `heads`, or raise a `UserError` that names `option` and lists the divisors."""
    if channels % heads:
        raise UserError(
            f"{option}: {heads} does not divide {channels} channels{divisor_hint(channels)}"
        )
    return heads


def default_heads(channels: int, width: int) -> int:
    """Return the largest divisor of `channels` that leaves at least `width` channels per head."""
    most = max(channels // width, 1)
    return next(heads for heads in range(most, 0, -1) if channels % heads == 0)


def divisor_hint(channels: int) -> str:
    """Return `"; expected one of: 1, 2, 4"`, the divisors of `channels`, for an error message."""
    divisors = [str(number) for number in range(1, channels + 1) if channels % number == 0]
    return f"; expected one of: {', '.join(divisors)}"


def upcast(x: Tensor) -> Tensor:
    """Convert bfloat16 and float16 to float32; leave other dtypes unchanged."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def no_autocast(x: Tensor) -> AbstractContextManager:
    """Disable autocast on the device of `x`: scores, softmax and covariances need float32."""
    device = x.device.type
    active = device in AUTOCAST_DEVICES and torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if active else nullcontext()


def fold_groups(x: Tensor, groups: int) -> Tensor:
    """`(B, C, H, W)` -> `(B * groups, C / groups, H, W)`; `reshape_as(x)` undoes it."""
    return x.reshape(-1, x.shape[1] // groups, *x.shape[2:])


def spatial_variance(squares: Tensor) -> Tensor:
    """Return the unbiased variance over H x W, `(B, C, 1, 1)`; 0 on a map of one position.

    Written out because PyTorch's gives NaN there, and an ONNX graph that OpenCV 4 refuses.

    Args:
        squares: squared deviations from the mean over H x W, `(B, C, H, W)`.
    """
    return squares.sum((2, 3), keepdim=True) / max(squares[0, 0].numel() - 1, 1)


def to_tokens(x: Tensor) -> Tensor:
    """`(B, C, H, W)` -> `(B, N, C)`."""
    return x.flatten(2).transpose(1, 2)


def from_tokens(tokens: Tensor, size: Sequence[int]) -> Tensor:
    """`(B, N, C)` -> `(B, C, H, W)`, with `size` = (H, W)."""
    return tokens.transpose(1, 2).unflatten(2, size)


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """`(B, N, C)` -> `(B, heads, N, C / heads)`."""
    return tokens.unflatten(2, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """`(B, heads, N, C / heads)` -> `(B, N, C)`."""
    return x.transpose(1, 2).flatten(2)


def split_channels(x: Tensor, heads: int) -> Tensor:
    """`(B, C, H, W)` -> `(B, heads, N, C / heads)`."""
    return x.flatten(2).unflatten(1, (heads, -1)).transpose(2, 3)


def join_channels(x: Tensor, size: Sequence[int]) -> Tensor:
    """`(B, heads, N, C / heads)` -> `(B, C, H, W)`, with `size` = (H, W)."""
    return x.transpose(2, 3).flatten(1, 2).unflatten(2, size)


def scaled_dot_product(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float = 1.0,
    dropout: float = 0.0,
    bias: Tensor | None = None,
) -> Tensor:
    """Compute `softmax(scale * query key^T) value` in float32, with a fused kernel if available.

    Args:
        query: `(B, heads, N, d)`, or `(B, N, d)` if none of the three has a head axis.
        key: `(B, heads, M, d)`.
        value: `(B, heads, M, e)`.
        scale: factor of the scores.
        dropout: probability of dropping a weight.
        bias: added to the scores, as wide as their dtype, broadcast to `(B, heads, N, M)`, or to
            `(B, N, M)` without a head axis.

    Returns:
        `(B, heads, N, e)`, in the dtype of `query`.
    """
    if query.ndim == 3:  # the fused kernels and the ONNX exporter support only four axes
        one_head = (query[:, None], key[:, None], value[:, None])
        if bias is not None and bias.ndim == 3:
            bias = bias[:, None]
        return scaled_dot_product(*one_head, scale, dropout, bias)[:, 0]
    with no_autocast(query):
        attended = F.scaled_dot_product_attention(
            upcast(query), upcast(key), upcast(value), bias, dropout, scale=scale
        )
    return attended.to(query.dtype)


def dot_product_weights(
    query: Tensor, key: Tensor, scale: float = 1.0, bias: Tensor | None = None
) -> Tensor:
    """Compute the weights `softmax(scale * query key^T)` of few queries, in float32.

    Args:
        query: `(..., n, d)`.
        key: `(..., M, d)`.
        scale: factor of the scores.
        bias: added to the scores, broadcast to `(..., n, M)`.

    Returns:
        `(..., n, M)`.
    """
    with no_autocast(query):
        scores = scale * upcast(query) @ upcast(key).transpose(-2, -1)
        return (scores if bias is None else scores + bias).softmax(-1)


def flat_index(point: Sequence[int] | None, size: Sequence[int]) -> int:
    """Return the index in `range(N)` of the position `point` in a map of `size`; None: the center.

    Raises:
        IndexError: `point` lies outside the map.
    """
    if point is None:
        point = [side // 2 for side in size]
    index = 0
    for coordinate, side in zip(point, size, strict=True):
        if not 0 <= coordinate < side:
            raise IndexError(f"point {tuple(point)} lies outside the map of {tuple(size)}")
        index = index * side + coordinate
    return index


def spread_weights(weights: Tensor, size: Sequence[int], step: int) -> Tensor:
    """Spread weights of a coarser grid over the positions that they stand for.

    Args:
        weights: `(B, h, w)`.
        size: sides of the map, (H, W); an axis of the same length stays as it is.
        step: positions per cell along the other axes; those behind the last cell get 0.

    Returns:
        `(B, *size)`.
    """
    for axis, side in enumerate(size, 1):
        cells = weights.shape[axis]
        if cells == side:
            continue
        cell = torch.arange(side, device=weights.device) // step
        spread = weights.movedim(axis, -1)[..., cell.clamp(max=cells - 1)]
        weights = (spread * (cell < cells)).movedim(-1, axis)
    return weights
