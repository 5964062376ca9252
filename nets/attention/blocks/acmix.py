"""ACmix: local attention and a convolution that share their 1x1 convolutions.

Pan, Ge, Lu, Song, Chen, Huang, Huang: On the Integration of Self-Attention and Convolution,
CVPR 2022, arXiv 2111.14556

    q, k, v = conv1x1(x)                     with bias, h heads of d = C / h channels
    e_ij = q_i . (k_j + p_i - p_j) / sqrt(d)     j in the 7 x 7 window around i
    att_i = sum over j of softmax(e)_ij v_j      (B, C, H, W), channels in h groups of d
    f = conv1x1([q, k, v]), 3 h -> 9         for each of the d channels of a head
    conv = grouped conv3x3(f)                (B, C, H, W), d groups 9 -> h, channels in d groups
    y = x + r1 att + r2 conv                 r1 and r2 start at 1/2

p is a 1x1 convolution 2 -> d of the coordinates (x, y), from -1 to 1 over the map: it depends on
the map's size. As q_i . p_i is the same for all keys, the softmax cancels it, and so the keys are
k_j - p_j: no score needs the pair's offset. Outside the map lies its reflection: index |i|, beyond
the other side 2 (n - 1) - i, at least 0. The convolution starts as the sum of nine shifts.

The windows of a block of 7 x 7 queries lie in 13 x 13 positions: attention to these under a mask,
instead of 49 shifted copies of k and of v.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.attention.base import AttentionMaps, ResidualAttention
from nets.attention.layers import (
    check_heads,
    dot_product_weights,
    flat_index,
    scaled_dot_product,
    upcast,
)
from nets.attention.options import OddInt, PositiveInt
from nets.attention.registry import register
from nets.attention.windows import (
    MASKED,
    either,
    from_windows,
    locate,
    neighborhoods,
    outside,
    pad_to_multiples,
    to_windows,
)


class SharedConv(nn.Module):
    """The convolution's branch, f and the grouped convolution, of q, k and v `(B, 3 C, H, W)`."""

    def __init__(self, channels: int, heads: int, kernel_size: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        positions = kernel_size**2
        self.mix = nn.Conv2d(3 * heads, positions, 1, bias=False)
        self.conv = nn.Conv2d(
            channels // heads * positions,
            channels,
            kernel_size,
            padding=kernel_size // 2,
            groups=channels // heads,
            bias=bias,
        )
        shifts = torch.eye(positions).view(positions, kernel_size, kernel_size)
        self.conv.weight = nn.Parameter(shifts.repeat(channels, 1, 1, 1))

    def forward(self, maps: Tensor) -> Tensor:
        size = maps.shape[2:]
        by_channel = maps.unflatten(1, (3 * self.heads, -1))  # (B, 3 h, d, H, W)
        mixed = self.mix(by_channel.flatten(3)).transpose(1, 2)  # (B, d, positions, N)
        return self.conv(mixed.flatten(1, 2).unflatten(2, size))


@register("acmix", family="self_attention", paper="Pan et al.: ACmix, CVPR 2022, arXiv 2111.14556")
class ACmix(ResidualAttention):
    """ACmix; its map is the mean of the heads, zero outside the window of the point.

    Args:
        channels: C.
        heads: the number h, divides C; 4 as in the paper.
        kernel_att: odd side of the attention's windows; 7 as in the paper.
        kernel_conv: odd side of the convolution; 3 as in the paper.
        bias: a bias in the grouped convolution.
        residual: add x.

    Traps:
        - p depends on the size of the map: trained at 416 and used at 608, offsets differ.
        - The branches order the channels differently, by head and within the heads.
    """

    zero_gradient = ("position.bias",)  # p_i - p_j cancels it
    far: Tensor

    def __init__(
        self,
        channels: int,
        *,
        heads: PositiveInt = 4,
        kernel_att: OddInt = 7,
        kernel_conv: OddInt = 3,
        bias: bool = False,
        residual: bool = True,
    ) -> None:
        super().__init__(residual)
        self.heads = check_heads("acmix.heads", heads, channels)
        width = channels // heads
        self.scale = width**-0.5
        self.block = (kernel_att, kernel_att)
        self.margin = kernel_att // 2
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.position = nn.Conv2d(2, width, 1)
        self.shared = SharedConv(channels, heads, kernel_conv, bias)
        self.share_att = nn.Parameter(torch.tensor(0.5))
        self.share_conv = nn.Parameter(torch.tensor(0.5))
        steps = torch.arange(kernel_att + 2 * self.margin) - torch.arange(kernel_att)[:, None]
        beyond = outside(steps, kernel_att)  # of a window that starts at the query
        self.register_buffer("far", MASKED * either(beyond, beyond), persistent=False)

    def _positions(self, x: Tensor) -> Tensor:
        """p, (1, C, H, W): the same for each head."""
        height, width = (
            torch.linspace(-1, 1, side, dtype=x.dtype, device=x.device) for side in x.shape[2:]
        )
        grid = torch.stack(torch.meshgrid(width, height, indexing="xy"))
        return self.position(grid[None]).repeat(1, self.heads, 1, 1)

    def _around(self, x: Tensor) -> Tensor:
        """The map with its reflection, and zeros up to whole blocks."""
        margin = self.margin
        bottom, right = (-side % of for side, of in zip(x.shape[2:], self.block, strict=True))
        return F.pad(reflect(x, margin), (0, right, 0, bottom))

    def _parts(self, maps: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The queries (B, blocks * h, b^2, d), k - p and v (B, blocks * h, n^2, d)."""
        query, key, value = maps.chunk(3, 1)
        query = to_windows(pad_to_multiples(query, self.block), self.block, self.heads)
        key, value = (
            neighborhoods(self._around(part), self.block[0], self.margin, self.heads)
            for part in (key - self._positions(x), value)
        )
        return query, key, value

    def attended(self, x: Tensor) -> Tensor:
        maps = self.qkv(x)
        query, key, value = self._parts(maps, x)
        bias = self.far.to(upcast(query).dtype)
        windows = scaled_dot_product(query, key, value, self.scale, bias=bias)
        attended = from_windows(windows, self.block, x.shape[2:], self.heads)
        return self.share_att * attended + self.share_conv * self.shared(maps)

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        """`query`: what lies in the reflection counts where it comes from."""
        size = x.shape[2:]
        position = divmod(flat_index(point, size), size[1])
        number, index = locate(position, self.block, size[1])
        query, key, _ = self._parts(self.qkv(x), x)
        bias = self.far.to(upcast(query).dtype)
        weights = dot_product_weights(query, key, self.scale, bias)[:, :, index]
        row = weights.unflatten(1, (-1, self.heads))[:, number].mean(1)
        numbers = torch.arange(size.numel(), device=x.device, dtype=row.dtype).view(1, 1, *size)
        sources = neighborhoods(self._around(numbers), self.block[0], self.margin, 1)[
            0, number, :, 0
        ]
        reads = row.new_zeros(len(row), size.numel())
        return {"query": reads.index_add(1, sources.long(), row).unflatten(1, size)}


def reflect(x: Tensor, margin: int) -> Tensor:
    """Extend (B, C, H, W) by its reflection, sides of any length; see the formula above."""
    if min(x.shape[2:]) > margin:
        return F.pad(x, [margin] * 4, "reflect")
    for axis, side in enumerate(x.shape[2:], 2):
        positions = torch.arange(-margin, side + margin, device=x.device).abs()
        positions = (side - 1 - (side - 1 - positions).abs()).clamp(min=0)
        x = x.index_select(axis, positions)
    return x
