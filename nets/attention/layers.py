"""What the blocks share: their base class, the identity wrapper, and helpers for norms, precision and attention.

Shapes: B images, C channels, H x W positions, N = H * W.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utils.core.errors import UserError

Maps = dict[str, Tensor]
# asked once: inside a function, older PyTorch could not compile it
AUTOCAST_DEVICES = [
    name for name in ("cpu", "cuda", "mps", "xpu") if torch.amp.is_autocast_available(name)
]


class AttentionBlock(nn.Module):
    """Base of the project's blocks (a user's own block needs none of it).

    Attributes:
        identity_at_start: a new block returns its input, bit for bit (a gate, a last layer or a warp starts neutral).
        zero_gradient: parameters that never receive a gradient because a later step cancels them, such as the bias
            of the keys under a softmax over the keys. Everything else must learn; the conformance test checks both.
    """

    identity_at_start: bool = False
    zero_gradient: tuple[str, ...] = ()

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> Maps:
        """What the block attends to in `x` `(B, C, H, W)`, for pictures.

        Returns the keys that fit the block: `channel` `(B, C)` gate values; `spatial` `(B, H, W)` gate values;
        `query` `(B, H, W)` weights that position `point` (row, column; default: the middle) gives to all positions;
        `branch` `(B, branches, C)` weights; `displacement` `(B, H, W)` how far a warp moves, in positions.
        """
        raise NotImplementedError(f"{type(self).__name__} shows no attention")


class IdentityStart(nn.Module):
    """`y = x + alpha * (block(x) - x)`, alpha learnable and 0 at start: pretrained weights keep their outputs.

    Not for a block that is the identity at start already: d/dalpha ~ block(x) - x and the gradient of the block's own
    gate ~ alpha would both be zero, for ever. `build` knows the difference.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.alpha = nn.Parameter(torch.zeros(()))
        self.zero_gradient = tuple(f"block.{name}" for name in getattr(block, "zero_gradient", ()))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.alpha * (self.block(x) - x)

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> Maps:
        """The wrapped block's attention, see `AttentionBlock.attention`."""
        return self.block.attention(x, point)  # type: ignore[operator]


class _SingleValue:
    """Batch normalization that survives one value a channel (batch 1 on a pooled vector or a 1 x 1 map).

    A variance of one value does not exist and PyTorch raises; there the layer uses its running statistics and leaves
    them as they are.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:  # type: ignore[attr-defined]
            norm: nn.BatchNorm2d = self  # type: ignore[assignment]
            return F.batch_norm(
                x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps
            )
        return super().forward(x)  # type: ignore[misc]


class BatchNorm1d(_SingleValue, nn.BatchNorm1d):
    """`nn.BatchNorm1d` that survives one value a channel."""


class BatchNorm2d(_SingleValue, nn.BatchNorm2d):
    """`nn.BatchNorm2d` that survives one value a channel."""


class BatchNorm3d(_SingleValue, nn.BatchNorm3d):
    """`nn.BatchNorm3d` that survives one value a channel."""


def narrow(channels: int, reduction: int) -> int:
    """The hidden width `max(channels // reduction, 1)`; without the 1, few channels would leave no width at all."""
    return max(channels // reduction, 1)


def fit_groups(groups: int, *widths: int) -> int:
    """The largest divisor of `groups` that divides every width."""
    return math.gcd(groups, *widths)


def divisors(channels: int) -> str:
    """`; expected one of: 1, 2, 4` for an error about a number that does not divide the channels."""
    return "; expected one of: " + ", ".join(
        str(n) for n in range(1, channels + 1) if channels % n == 0
    )


def check_heads(option: str, heads: int, channels: int) -> int:
    """Return `heads`, or raise a `UserError` that lists the divisors of `channels`."""
    if channels % heads:
        raise UserError(
            f"{option}: {heads} does not divide {channels} channels{divisors(channels)}"
        )
    return heads


def full(x: Tensor) -> Tensor:
    """X in float32 where it is bfloat16 or float16, else unchanged."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def no_autocast(x: Tensor) -> AbstractContextManager:
    """Context in which autocast does not narrow matrix products: for scores, softmax and covariances."""
    device = x.device.type
    active = device in AUTOCAST_DEVICES and torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if active else nullcontext()


def attend(
    query: Tensor, key: Tensor, value: Tensor, scale: float = 1.0, dropout: float = 0.0
) -> Tensor:
    """`softmax(scale * query key^T) value` in float32, by PyTorch's fused kernel where there is one.

    query `(B, heads, N, d)`, key `(B, heads, M, d)`, value `(B, heads, M, e)` -> `(B, heads, N, e)`, dtype of query;
    or all without `heads`.
    """
    if query.ndim == 3:  # the fused kernels and the ONNX exporter know only four axes
        return attend(query[:, None], key[:, None], value[:, None], scale, dropout)[:, 0]
    with no_autocast(query):
        mixed = F.scaled_dot_product_attention(
            full(query), full(key), full(value), dropout_p=dropout, scale=scale
        )
    return mixed.to(query.dtype)


def attention_row(query: Tensor, key: Tensor, scale: float = 1.0) -> Tensor:
    """The weights inside `attend`, for few queries: `(..., n, d)`, `(..., M, d)` -> `(..., n, M)`."""
    with no_autocast(query):
        return (scale * full(query) @ full(key).transpose(-2, -1)).softmax(-1)


def position(point: Sequence[int] | None, size: Sequence[int]) -> int:
    """Index in `range(N)` of the position `point` (row, column), of the middle where it is None."""
    index = 0
    for place, side in zip(
        [side // 2 for side in size] if point is None else point, size, strict=True
    ):
        if not 0 <= place < side:
            raise IndexError(f"point {tuple(point or ())} lies outside the map of {tuple(size)}")
        index = index * side + place
    return index


def spread(weights: Tensor, size: Sequence[int]) -> Tensor:
    """Weights `(B, h, w)` of a coarser grid -> `(B, H, W)`: each position shows the weight of its cell."""
    return (
        weights
        if weights.shape[1:] == tuple(size)
        else F.interpolate(weights[:, None], tuple(size))[:, 0]
    )


def gate_maps(gate: Tensor) -> Maps:
    """Channel and spatial means of a gate that differs in all of `(B, C, H, W)`."""
    return {"channel": gate.mean((2, 3)), "spatial": gate.mean(1)}
