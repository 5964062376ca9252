"""Parallel multi-scale attention: attention beside convolutions of its values.

Zhao, Sun, Xu, Zhang, Luo: MUSE: Parallel Multi-Scale Attention for Sequence to Sequence Learning,
2019, arXiv 1911.09483

    q, k, v = conv1x1(x)                     with bias, h heads of d = C / h channels
    A = softmax(q k^T / sqrt(d))             (B, h, N, N)
    y = x + W_o(A v) + sum over s of softmax(w)_s P_s(dw_s(v))      (B, C, H, W)

dw_s: depthwise convolutions of side 1 (none), 3 and 5; P_s and W_o: 1x1 convolutions; all with
bias. The paper's are along a sequence; here they have two dimensions. w starts at 0.
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
)
from nets.attention.options import PositiveInt
from nets.attention.registry import register

SIDES = (1, 3, 5)


def _scale(channels: int, side: int) -> nn.Sequential:
    point = nn.Conv2d(channels, channels, 1)
    if side == 1:
        return nn.Sequential(point)
    depth = nn.Conv2d(channels, channels, side, padding=side // 2, groups=channels)
    return nn.Sequential(depth, point)


@register("muse", family="self_attention", paper="Zhao et al.: MUSE, 2019, arXiv 1911.09483")
class MUSE(ResidualAttention):
    """Parallel multi-scale attention; the map `query` is the mean of the heads.

    Args:
        channels: C.
        heads: the number h, divides C.
        residual: add x.

    Traps:
        - The paper's convolutions run along a sequence; along flattened rows, the end of one row
          would be next to the start of another.
    """

    def __init__(self, channels: int, *, heads: PositiveInt = 8, residual: bool = True) -> None:
        super().__init__(residual)
        self.heads = check_heads("muse.heads", heads, channels)
        self.scale = (channels // heads) ** -0.5
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        self.scales = nn.ModuleList(_scale(channels, side) for side in SIDES)
        self.shares = nn.Parameter(torch.zeros(len(SIDES)))

    def attended(self, x: Tensor) -> Tensor:
        maps = self.qkv(x).chunk(3, 1)
        query, key, value = (split_channels(part, self.heads) for part in maps)
        attended = scaled_dot_product(query, key, value, self.scale)
        y = self.out(join_channels(attended, x.shape[2:]))
        for share, scale in zip(self.shares.softmax(0), self.scales, strict=True):
            y = y + share * scale(maps[2])
        return y

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        """`branch`: shares of the convolutions of side 1, 3 and 5."""
        index = flat_index(point, x.shape[2:])
        query, key, _ = (split_channels(part, self.heads) for part in self.qkv(x).chunk(3, 1))
        row = dot_product_weights(query[:, :, index : index + 1], key, self.scale)[:, :, 0].mean(1)
        shares = self.shares.softmax(0)[:, None].expand(x.shape[0], -1, x.shape[1])
        return {"query": row.unflatten(1, x.shape[2:]), "branch": shares}
