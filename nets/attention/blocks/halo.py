"""Halo attention: blocks of queries attend to the block and a margin around it.

Vaswani, Ramachandran, Srinivas, Parmar, Hechtman, Shlens: Scaling Local Self-Attention for
Parameter Efficient Visual Backbones, CVPR 2021, arXiv 2103.12731

    q, k, v = conv1x1(x)                     no bias, h heads of d = C / h channels
    e_ij = q_i . k_j / sqrt(d) + q_i . (R_h[dy] + R_w[dx])
    y = x + softmax over j of e  v           (B, C, H, W), no output layer

Queries come in blocks of b x b, keys from the n x n positions around one, n = b + 2 a. dy is the
row of the key in these minus the row of the query in its block, plus n - 1; dx likewise. As in the
common code, the tables of 2 n - 1 rows have 2 a that no offset reaches. Positions outside the map
have no weight (mask=false: they are keys and values of zeros).
"""

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
from nets.attention.options import PositiveInt, SmallInt, SmallOrZero
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


@register(
    "halo", family="self_attention", paper="Vaswani et al.: HaloNet, CVPR 2021, arXiv 2103.12731"
)
class Halo(ResidualAttention):
    """Halo attention; its map is the mean of the heads, zero outside what the point's block sees.

    Args:
        channels: C.
        heads: the number h, divides C.
        block: side b, >= 1.
        halo: margin a, >= 0.
        mask: give positions outside the map no weight.
        residual: add x.

    Traps:
        - What a query sees depends on its place in the block: neighbors on both sides of a border
          have other windows.
    """

    offsets: Tensor

    def __init__(
        self,
        channels: int,
        *,
        heads: PositiveInt = 8,
        block: SmallInt = 8,
        halo: SmallOrZero = 3,
        mask: bool = True,
        residual: bool = True,
    ) -> None:
        super().__init__(residual)
        self.heads = check_heads("halo.heads", heads, channels)
        width = channels // heads
        self.scale = width**-0.5
        self.block = (block, block)
        self.halo = halo
        self.side = block + 2 * halo
        self.mask = mask
        self.query = nn.Conv2d(channels, channels, 1, bias=False)
        self.key_value = nn.Conv2d(channels, 2 * channels, 1, bias=False)  # per head: k, then v
        self.rows = nn.Parameter(torch.empty(2 * self.side - 1, width))
        self.columns = nn.Parameter(torch.empty(2 * self.side - 1, width))
        for table in (self.rows, self.columns):
            nn.init.trunc_normal_(table, std=self.scale)
        offsets = torch.arange(self.side) - torch.arange(block)[:, None] + self.side - 1
        self.register_buffer("offsets", offsets, persistent=False)  # (b, n)

    def _position_scores(self, query: Tensor) -> Tensor:
        """q_i . (R_h[dy] + R_w[dx]), (B, blocks * h, b^2, n^2), float32."""
        with no_autocast(query):
            query = upcast(query).unflatten(2, self.block)  # (B, blocks * h, b, b, d)
            of_rows = self._along_rows(query, self.rows)
            of_columns = self._along_rows(query.transpose(2, 3), self.columns).transpose(2, 3)
            of_rows, of_columns = (part.flatten(2, 3) for part in (of_rows, of_columns))
            return (of_rows.unsqueeze(4) + of_columns.unsqueeze(3)).flatten(3)

    def _along_rows(self, query: Tensor, table: Tensor) -> Tensor:
        """The products of a block's rows of queries with the table: (B, blocks * h, b, b, n)."""
        offsets = F.embedding(self.offsets, upcast(table)).transpose(1, 2)  # (b, d, n)
        by_row = query.permute(2, 0, 1, 3, 4)
        # without broadcasting, which some ONNX runtimes get wrong in a matrix product
        products = by_row.flatten(1, 3) @ offsets
        return products.unflatten(1, (-1, *by_row.shape[2:4])).permute(1, 2, 0, 3, 4)

    def _outside(self, x: Tensor) -> Tensor:
        """1 for keys outside the map, else 0: (1, blocks * h, 1, n^2)."""
        positions = torch.arange(self.side, device=x.device) - self.halo
        axes = (
            outside(of * torch.arange(-(-side // of), device=x.device)[:, None] + positions, side)
            for side, of in zip(x.shape[2:], self.block, strict=True)
        )
        return either(*axes).repeat_interleave(self.heads, 0).view(1, -1, 1, self.side**2)

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The queries (B, blocks * h, b^2, d), k and v (B, blocks * h, n^2, d), and a bias."""
        query = to_windows(pad_to_multiples(self.query(x), self.block), self.block, self.heads)
        maps = pad_to_multiples(self.key_value(x), self.block)
        around = F.pad(maps, [self.halo] * 4)
        cut = neighborhoods(around, self.block[0], self.halo, self.heads)
        key, value = cut.chunk(2, 3)
        bias = self._position_scores(query)
        if self.mask:
            bias = bias + MASKED * self._outside(x).to(bias.dtype)
        return query, key, value, bias

    def attended(self, x: Tensor) -> Tensor:
        query, key, value, bias = self._parts(x)
        attended = scaled_dot_product(query, key, value, self.scale, bias=bias)
        return from_windows(attended, self.block, x.shape[2:], self.heads)

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        """`query`: zero beyond the margin around the block of `point`."""
        height, width = x.shape[2:]
        position = divmod(flat_index(point, (height, width)), width)
        padded = [side + -side % of for side, of in zip((height, width), self.block, strict=True)]
        number, index = locate(position, self.block, width)
        query, key, _, bias = self._parts(x)
        weights = dot_product_weights(query, key, self.scale, bias)[:, :, index]
        row = weights.unflatten(1, (-1, self.heads))[:, number].mean(1)
        top, left = (at // of * of for at, of in zip(position, self.block, strict=True))
        around = row.new_zeros(len(row), *(side + 2 * self.halo for side in padded))
        around[:, top : top + self.side, left : left + self.side] = row.unflatten(
            1, (self.side, -1)
        )
        inside = around[:, self.halo :, self.halo :]
        return {"query": inside[:, :height, :width]}
