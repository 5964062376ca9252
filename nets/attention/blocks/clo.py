"""CloFormer's attention: heads that look around and heads that look at a coarser map.

Fan, Huang, Guan, He: Rethinking Local Perception in Lightweight Vision Transformer, 2023,
arXiv 2303.17803

    local:  q, k, v = dw5x5(W x)                     (B, a, H, W)
            A = tanh(W2 silu(W1 (q k)) / sqrt(d))    (B, a, H, W), the product is elementwise
            l = A v
    global: q = W_q x                                (B, C - a, H, W)
            k, v = W_kv pool(x)                      means over w x w positions
            g = softmax(q k^T / sqrt(d)) v           (B, C - a, H, W)
    y = x + W_o [l, g]                               (B, C, H, W)

Of h heads of d = C / h channels, the first a / d are local. All layers have biases. Windows at the
bottom and the right may be smaller.
"""

import torch
from torch import Tensor, nn

from nets.attention.base import AttentionMaps, ResidualAttention
from nets.attention.layers import (
    check_heads,
    dot_product_weights,
    flat_index,
    join_channels,
    scaled_dot_product,
    split_channels,
    spread_weights,
)
from nets.attention.options import OddInt, PositiveInt, SmallInt, SmallOrZero
from nets.attention.registry import register
from nets.attention.windows import window_means
from utils.core.errors import UserError


class LocalHeads(nn.Module):
    """The local heads' values times their gates, `(B, C, H, W)` -> `(B, width, H, W)`."""

    def __init__(self, channels: int, width: int, kernel_size: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.qkv = nn.Conv2d(channels, 3 * width, 1)
        self.local = nn.Conv2d(
            3 * width, 3 * width, kernel_size, padding=kernel_size // 2, groups=3 * width
        )
        self.gate = nn.Sequential(nn.Conv2d(width, width, 1), nn.SiLU(), nn.Conv2d(width, width, 1))

    def gate_and_value(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A, between -1 and 1, and v."""
        query, key, value = self.local(self.qkv(x)).chunk(3, 1)
        return (self.scale * self.gate(query * key)).tanh(), value

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.gate_and_value(x)
        return gate * value


class GlobalHeads(nn.Module):
    """Attention to the means of windows, `(B, C, H, W)` -> `(B, width, H, W)`."""

    def __init__(self, channels: int, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.window = window
        self.query = nn.Conv2d(channels, width, 1)
        self.key_value = nn.Conv2d(channels, 2 * width, 1)

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The query's map, and the coarser ones of keys and values."""
        key, value = self.key_value(window_means(x, (self.window, self.window))).chunk(2, 1)
        return self.query(x), key, value

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (split_channels(part, self.heads) for part in self._parts(x))
        return join_channels(scaled_dot_product(query, key, value, self.scale), x.shape[2:])

    def row(self, x: Tensor, point: tuple[int, int] | None) -> Tensor:
        """The weights of the point, mean of the heads, (B, H, W)."""
        index = flat_index(point, x.shape[2:])
        query, key, _ = self._parts(x)
        at_point = split_channels(query, self.heads)[:, :, index : index + 1]
        weights = dot_product_weights(at_point, split_channels(key, self.heads), self.scale)
        row = weights[:, :, 0].mean(1).unflatten(1, key.shape[2:])
        return spread_weights(row, x.shape[2:], self.window)


@register("clo", family="self_attention", paper="Fan et al.: CloFormer, 2023, arXiv 2303.17803")
class Clo(ResidualAttention):
    """CloFormer's attention.

    Args:
        channels: C.
        heads: the number h, divides C.
        local_heads: how many of them are local, 0 to h.
        kernel_size: odd side of the local heads' depthwise convolution.
        window: side w of the windows that global heads see as one, >= 1.
        residual: add x.

    Traps:
        - Only the global heads see beyond their kernel; with `local_heads` = heads there are none.
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: PositiveInt = 8,
        local_heads: SmallOrZero = 4,
        kernel_size: OddInt = 5,
        window: SmallInt = 4,
        residual: bool = True,
    ) -> None:
        super().__init__(residual)
        width = channels // check_heads("clo.heads", heads, channels)
        if local_heads > heads:
            raise UserError(f"clo.local_heads: expected 0 to {heads} (heads), got {local_heads}")
        others = heads - local_heads
        self.around = self.far = None
        if local_heads:
            self.around = LocalHeads(channels, local_heads * width, kernel_size, width**-0.5)
        if others:
            self.far = GlobalHeads(channels, others * width, others, window)
        self.out = nn.Conv2d(channels, channels, 1)

    def attended(self, x: Tensor) -> Tensor:
        parts = [part(x) for part in (self.around, self.far) if part is not None]
        return self.out(torch.cat(parts, 1))

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        """`spatial`: mean size of the local heads' gates; `query`: mean of the global heads."""
        maps: AttentionMaps = {}
        if self.around is not None:
            maps["spatial"] = self.around.gate_and_value(x)[0].abs().mean(1)
        if self.far is not None:
            maps["query"] = self.far.row(x, point)
        return maps
