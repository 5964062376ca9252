"""Axial attention: along each column and along each row, with weights of their own.

Ho, Kalchbrenner, Weissenborn, Salimans: Axial Attention in Multidimensional Transformers, 2019,
arXiv 1912.12180

    A_H(x) = multi-head attention among the H positions of each column
    A_W(x) = multi-head attention among the W positions of each row
    sum:        y = x + A_H(x) + A_W(x)      (B, C, H, W)
    sequential: y = x + A_W(A_H(x))          links every pair of positions

q, k and v have no bias, the output layers have one.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from nets.attention.base import AttentionMaps, ResidualAttention
from nets.attention.layers import (
    check_heads,
    dot_product_weights,
    flat_index,
    scaled_dot_product,
)
from nets.attention.options import PositiveInt
from nets.attention.registry import register


class LineAttention(nn.Module):
    """Multi-head attention inside each of M lines of L positions, `(B, M, L, C)`."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (channels // heads) ** -0.5
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.out = nn.Linear(channels, channels)

    def _query_key_value(self, lines: Tensor) -> list[Tensor]:
        """Three tensors (B, M * h, L, d)."""
        return [
            part.unflatten(3, (self.heads, -1)).transpose(2, 3).flatten(1, 2)
            for part in self.qkv(lines).chunk(3, 3)
        ]

    def forward(self, lines: Tensor) -> Tensor:
        query, key, value = self._query_key_value(lines)
        attended = scaled_dot_product(query, key, value, self.scale)
        return self.out(attended.unflatten(1, (-1, self.heads)).transpose(2, 3).flatten(3))

    def weights(self, lines: Tensor) -> Tensor:
        """The mean of the heads, (B, M, L, L)."""
        query, key, _ = self._query_key_value(lines)
        weights = dot_product_weights(query, key, self.scale)
        return weights.unflatten(1, (-1, self.heads)).mean(2)


@register(
    "axial", family="self_attention", paper="Ho et al.: Axial Attention, 2019, arXiv 1912.12180"
)
class Axial(ResidualAttention):
    """Axial attention.

    Args:
        channels: C.
        heads: the number of heads, divides C.
        mode: sum or sequential, see above.
        residual: add x.

    Traps:
        - There is no position code.
        - Mode sum reaches only a position's row and column.
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: PositiveInt = 8,
        mode: Literal["sum", "sequential"] = "sum",
        residual: bool = True,
    ) -> None:
        super().__init__(residual)
        check_heads("axial.heads", heads, channels)
        self.columns = LineAttention(channels, heads)
        self.rows = LineAttention(channels, heads)
        self.sequential = mode == "sequential"

    def _along_columns(self, x: Tensor) -> Tensor:
        return self.columns(x.permute(0, 3, 2, 1)).permute(0, 3, 2, 1)

    def _along_rows(self, x: Tensor) -> Tensor:
        return self.rows(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def attended(self, x: Tensor) -> Tensor:
        vertical = self._along_columns(x)
        return self._along_rows(vertical) if self.sequential else vertical + self._along_rows(x)

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        """`query`: sum: the mean of the two crossing lines; sequential: through the row's columns.

        The mean of the heads.
        """
        row, column = divmod(flat_index(point, x.shape[2:]), x.shape[3])
        before = self._along_columns(x) if self.sequential else x
        along_row = self.rows.weights(before.permute(0, 2, 3, 1))[:, row, column]  # (B, W)
        columns = self.columns.weights(x.permute(0, 3, 2, 1))[:, :, row]  # (B, W, H)
        if self.sequential:
            return {"query": (along_row[:, :, None] * columns).transpose(1, 2)}
        lines = torch.zeros_like(columns).transpose(1, 2)
        lines[:, :, column] += columns[:, column] / 2
        lines[:, row] += along_row / 2
        return {"query": lines}
