"""Bi-level routing attention: a region's positions attend to the regions that resemble it most.

Zhu, Wang, Ke, Zhang, Lau: BiFormer: Vision Transformer with Bi-Level Routing Attention, CVPR 2023,
arXiv 2303.08810

    q, k, v = conv1x1(x)                     with bias, h heads
    r_a = topk over regions b of q_a . k_b   (B, n^2, t), q_a and k_b means over a region
    A_ij = softmax(q_i . k_j / sqrt(C))      over the positions j of the t regions of i's region
    y = x + conv1x1(A v + dw5x5(v))          (B, C, H, W), with biases

A region is ceil(H / n) x ceil(W / n) positions, the last ones what is left. The scores are scaled
by the whole width C, as in the authors' code, not by a head's. The choice of regions has no
gradient: it learns through the attention between positions. It is made in float32 from the means
of x, as means and linear maps commute: rounding would let near-ties choose other regions.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.attention.base import AttentionMaps, ResidualAttention
from nets.attention.layers import (
    check_heads,
    dot_product_weights,
    flat_index,
    no_autocast,
    scaled_dot_product,
    upcast,
)
from nets.attention.options import OddInt, PositiveInt, SmallInt
from nets.attention.registry import register
from nets.attention.windows import (
    MASKED,
    from_windows,
    locate,
    pad_to_multiples,
    padding_of_windows,
    to_windows,
    window_means,
)


@register(
    "biformer", family="self_attention", paper="Zhu et al.: BiFormer, CVPR 2023, arXiv 2303.08810"
)
class BiFormer(ResidualAttention):
    """Bi-level routing attention; its map is the mean of the heads, zero outside the regions taken.

    Args:
        channels: C.
        heads: the number h, divides C.
        windows: regions n along each side, >= 1; 7 as in the paper.
        topk: regions t that a region attends to, >= 1, at most all.
        kernel_size: odd side of the depthwise convolution; 0: none.
        residual: add x.

    Traps:
        - The number of regions is fixed, so their size follows the input: 13 x 13 has regions of 2
          x 2, the last ones of 1.
        - Near-ties between regions: a small change of the features may choose others.
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: PositiveInt = 8,
        windows: SmallInt = 7,
        topk: PositiveInt = 4,
        kernel_size: OddInt | Literal[0] = 5,
        residual: bool = True,
    ) -> None:
        super().__init__(residual)
        self.heads = check_heads("biformer.heads", heads, channels)
        self.scale = channels**-0.5
        self.windows = windows
        self.topk = topk
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        self.pe = None
        if kernel_size:
            self.pe = nn.Conv2d(
                channels, channels, kernel_size, padding=kernel_size // 2, groups=channels
            )

    def _region(self, x: Tensor) -> list[int]:
        return [-(-side // self.windows) for side in x.shape[2:]]

    def _routes(self, x: Tensor) -> Tensor:
        """The regions that each region attends to, (B, regions, t), integers."""
        region, channels = self._region(x), x.shape[1]
        assert self.qkv.bias is not None
        with no_autocast(x), torch.no_grad():
            means = window_means(upcast(x), region)
            both = slice(2 * channels)
            query, key = F.conv2d(
                means, upcast(self.qkv.weight[both]), upcast(self.qkv.bias[both])
            ).chunk(2, 1)
            scores = query.flatten(2).transpose(1, 2) @ key.flatten(2)
        return scores.topk(min(self.topk, scores.shape[2]), 2).indices

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor]:
        """Queries (B * regions, h, cells, d), keys and values (B * regions, h, t * cells, d).

        Then the map of the values, what is added to the scores, and the routes.
        """
        region, channels = self._region(x), x.shape[1]
        maps = self.qkv(x)
        windows = to_windows(pad_to_multiples(maps, region), region)  # (B, regions, cells, 3C)
        routes = self._routes(x)
        batch, regions, taken = routes.shape
        first = torch.arange(batch, device=x.device)[:, None] * regions
        chosen = (routes.flatten(1) + first).flatten()
        gathered = windows[..., channels:].flatten(0, 1).index_select(0, chosen)
        gathered = (
            gathered.unflatten(0, (-1, taken)).flatten(1, 2).unflatten(2, (2, self.heads, -1))
        )
        query = windows[..., :channels].flatten(0, 1).unflatten(2, (self.heads, -1))
        key, value = (gathered[:, :, part].transpose(1, 2) for part in range(2))
        bias = None
        if any(side % of for side, of in zip(x.shape[2:], region, strict=True)):
            padding = padding_of_windows(x.shape[2:], region, x.device)
            bias = MASKED * padding.to(upcast(query).dtype).index_select(0, routes.flatten())
            bias = bias.unflatten(0, (-1, 1, 1, taken)).flatten(3)
        return query.transpose(1, 2), key, value, maps[:, 2 * channels :], bias, routes

    def _to_map(self, windows: Tensor, x: Tensor, heads: int) -> Tensor:
        """(B * regions, heads, cells, d) -> (B, heads * d, H, W)."""
        region, size = self._region(x), x.shape[2:]
        rows, columns = (-(-side // of) for side, of in zip(size, region, strict=True))
        windows = windows.unflatten(0, (-1, rows * columns)).flatten(1, 2)
        return from_windows(windows, region, size, heads)

    def attended(self, x: Tensor) -> Tensor:
        query, key, value, values, bias, _ = self._parts(x)
        attended = scaled_dot_product(query, key, value, self.scale, bias=bias)
        y = self._to_map(attended, x, self.heads)
        return self.out(y if self.pe is None else y + self.pe(values))

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        """`query`: zero outside the regions that the region of `point` attends to."""
        position, region = divmod(flat_index(point, x.shape[2:]), x.shape[3]), self._region(x)
        number, index = locate(position, region, x.shape[3])
        query, key, _, _, bias, routes = self._parts(x)
        weights = dot_product_weights(query, key, self.scale, bias)[:, :, index].mean(1)
        weights = weights.unflatten(0, (-1, routes.shape[1]))[:, number]
        row = weights.unflatten(1, (routes.shape[2], -1))  # (B, t, cells)
        regions = torch.zeros_like(row[:, :1]).repeat(1, routes.shape[1], 1)
        taken = routes[:, number, :, None].expand_as(row)
        regions = regions.scatter(1, taken, row)
        return {"query": self._to_map(regions.flatten(0, 1)[:, None, :, None], x, 1)[:, 0]}
