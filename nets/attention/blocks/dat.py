"""Deformable attention: keys and values are sampled where the queries point.

Xia, Pan, Song, Li, Huang: Vision Transformer with Deformable Attention, CVPR 2022, arXiv 2201.00520

    q = W_q x                                (B, C, H, W)
    o = W gelu(LN(dw(q)))                    (B g, 2, h, w), dw of stride s, h = ceil(H / s)
    p = r + tanh(o) range / (h - 1, w - 1)   r: a grid over the map, coordinates -1 to 1
    k, v = W_k x(p), W_v x(p)                (B, C, h, w), x sampled bilinearly, zero outside
    y = x + W_o(softmax(q k^T / sqrt(d)) v + dw3x3(q))    h heads of d = C / h channels

The offsets are those of g groups of C / g channels, which share dw, LN and W. range = -1 leaves
them free: p = r + o, cut off at -1 and 1. The position tables of the paper fix the size of the map;
dw3x3 of the queries, an option of the authors' code, does not.

                r along an axis of h points        first and last row of 13, stride 1
    paper       2 i / (h - 1) - 1                  0 and 12: the centers of the corner cells
    code        2 (i + 1/2) / (h - 1) - 1          0.5 and 12.5: half a cell further
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from nets.attention.base import AttentionMaps, ResidualAttention
from nets.attention.layers import (
    check_heads,
    divisor_hint,
    join_channels,
    no_autocast,
    scaled_dot_product,
    split_channels,
    to_tokens,
    upcast,
)
from nets.attention.options import OddInt, PositiveInt, SmallInt
from nets.attention.registry import register
from utils.core.errors import UserError

OffsetRange = Annotated[float, Field(gt=0, le=64)] | Literal[-1]


class Offsets(nn.Module):
    """The offsets o of one group's queries, `(B, C, H, W)` -> `(B, h, w, 2)`, rows first."""

    def __init__(self, channels: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            channels, channels, kernel_size, stride, kernel_size // 2, groups=channels
        )
        self.norm = nn.LayerNorm(channels)
        self.out = nn.Linear(channels, 2, bias=False)

    def forward(self, query: Tensor) -> Tensor:
        local = self.conv(query)
        offsets = self.out(F.gelu(self.norm(to_tokens(local))))
        return offsets.unflatten(1, local.shape[2:])


@register("dat", family="self_attention", paper="Xia et al.: DAT, CVPR 2022, arXiv 2201.00520")
class DeformableAttention(ResidualAttention):
    """Deformable attention.

    Its maps are the samples of all groups, and how far they are moved, in cells, the mean of the
    groups.

    Args:
        channels: C.
        heads: the number h, divides C.
        groups: the number g, divides the heads.
        stride: of the grid of samples, >= 1.
        kernel_size: odd side of the offsets' convolution.
        offset_range: largest offset in steps of the grid, above 0; -1: free.
        reference: the grid r, of the paper or of the authors' code, see above.
        residual: add x.

    Traps:
        - `reference: code` repeats the authors' grid, half a cell off.
        - The paper's table of positions fixes the size of the map, and is left out.
    """

    zero_gradient = ("key.bias",)  # the same for all keys: the softmax cancels it

    def __init__(
        self,
        channels: int,
        *,
        heads: PositiveInt = 8,
        groups: PositiveInt = 4,
        stride: SmallInt = 2,
        kernel_size: OddInt = 3,
        offset_range: OffsetRange = 4.0,
        reference: Literal["paper", "code"] = "paper",
        residual: bool = True,
    ) -> None:
        super().__init__(residual)
        self.heads = check_heads("dat.heads", heads, channels)
        if heads % groups:
            raise UserError(
                f"dat.groups: {groups} does not divide {heads} heads{divisor_hint(heads)}"
            )
        self.groups = groups
        self.scale = (channels // heads) ** -0.5
        self.range = offset_range
        self.shift = 0.5 if reference == "code" else 0.0
        self.query = nn.Conv2d(channels, channels, 1)
        self.offsets = Offsets(channels // groups, kernel_size, stride)
        self.key = nn.Conv2d(channels, channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.pe = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.out = nn.Conv2d(channels, channels, 1)

    def _samples(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """The points p and the grid r, (B g, h, w, 2) and (h, w, 2), rows first, float32."""
        grouped = query.unflatten(1, (self.groups, -1)).flatten(0, 1)
        offsets = upcast(self.offsets(grouped))
        size = offsets.shape[1:3]
        steps = [max(side - 1, 1) for side in size]
        axes = [
            2 / step * (torch.arange(side).to(offsets) + self.shift) - 1
            for side, step in zip(size, steps, strict=True)
        ]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), 2)
        if self.range < 0:
            return (grid + offsets).clamp(-1, 1), grid
        reach = torch.tensor([self.range / step for step in steps]).to(offsets)
        return grid + offsets.tanh() * reach, grid

    def attended(self, x: Tensor) -> Tensor:
        query = self.query(x)
        points, _ = self._samples(query)
        grouped = x.unflatten(1, (self.groups, -1)).flatten(0, 1)
        with no_autocast(x):
            sampled = F.grid_sample(upcast(grouped), points.flip(3), align_corners=True)
        sampled = sampled.to(x.dtype).unflatten(0, (-1, self.groups)).flatten(1, 2)
        attended = scaled_dot_product(
            split_channels(query, self.heads),
            split_channels(self.key(sampled), self.heads),
            split_channels(self.value(sampled), self.heads),
            self.scale,
        )
        return self.out(join_channels(attended, x.shape[2:]) + self.pe(query))

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        points, grid = self._samples(self.query(x))
        sides = torch.tensor(x.shape[2:]).to(points)
        cells = (sides - 1) / 2
        moved = ((points - grid) * cells).norm(dim=3).unflatten(0, (-1, self.groups)).mean(1)
        shares = ((points + 1) * cells + 0.5) / sides  # -1 and 1 are the centers of outer cells
        samples = shares.flip(3).unflatten(0, (-1, self.groups)).flatten(1, 3)
        return {
            "samples": samples,
            "displacement": F.interpolate(moved[:, None], x.shape[2:])[:, 0],
        }
