"""Criss-cross attention: a position reads from its row and its column; twice, from everywhere.

Huang, Wang, Huang, Huang, Wei, Liu: CCNet: Criss-Cross Attention for Semantic Segmentation,
ICCV 2019, arXiv 1811.11721

    q = W_q x, k = W_k x                     (B, C / reduction, H, W), 1x1 convolutions with bias
    v = W_v x                                (B, C, H, W)
    A = softmax over the cross of q . k      H + W - 1 keys
    y = x + gamma * sum of A v               (B, C, H, W), over the cross; gamma starts at 0

The cross of a position is its row and its column; the position itself counts once. The block is
applied R times with the same weights; R = 2 links every pair of positions.
"""

import torch
from torch import Tensor, nn

from nets.attention.base import AttentionBlock, AttentionMaps
from nets.attention.layers import flat_index, no_autocast, reduced_channels, upcast
from nets.attention.options import PositiveInt, SmallInt
from nets.attention.registry import register
from nets.attention.windows import MASKED


@register(
    "ccnet", family="self_attention", paper="Huang et al.: CCNet, ICCV 2019, arXiv 1811.11721"
)
class CrissCross(AttentionBlock):
    """Criss-cross attention.

    Args:
        channels: C.
        reduction: C over the width of queries and keys, >= 1; 8 as in the paper.
        recurrence: the number R, >= 1; 2 as in the paper.

    Traps:
        - With recurrence 1 a position sees only its row and its column.
    """

    identity_at_start = True
    zero_gradient = ("key.bias",)  # the same for all keys of a query: the softmax cancels it

    def __init__(
        self, channels: int, *, reduction: PositiveInt = 8, recurrence: SmallInt = 2
    ) -> None:
        super().__init__()
        hidden = reduced_channels(channels, reduction)
        self.query = nn.Conv2d(channels, hidden, 1)
        self.key = nn.Conv2d(channels, hidden, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(()))
        self.recurrence = recurrence

    def _weights(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of the column (B, H, W, H) and the row (B, H, W, W), float32; their sum is 1."""
        query, key = upcast(self.query(x)), upcast(self.key(x))
        with no_autocast(x):
            column = torch.einsum("bchw,bcgw->bhwg", query, key)
            row = torch.einsum("bchw,bchv->bhwv", query, key)
        height = x.shape[2]
        # the position itself counts in the row, not in the column
        itself = MASKED * torch.eye(height, device=x.device)[:, None]  # (H, 1, H)
        weights = torch.cat([column + itself, row], 3).softmax(3)
        return weights[..., :height], weights[..., height:]

    def _once(self, x: Tensor) -> Tensor:
        column, row = self._weights(x)
        value = self.value(x)
        with no_autocast(x):
            attended = torch.einsum("bhwg,bcgw->bchw", column, upcast(value))
            attended = attended + torch.einsum("bhwv,bchv->bchw", row, upcast(value))
        return x + self.gamma * attended.to(value.dtype)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.recurrence):
            x = self._once(x)
        return x

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        """`query`: what `point` reads from every position through all R steps, last step first."""
        weights = []
        for _ in range(self.recurrence):
            weights.append(self._weights(x))
            x = self._once(x)
        batch, _, height, width = x.shape
        reach = torch.zeros(batch, height, width, dtype=weights[0][0].dtype, device=x.device)
        reach.flatten(1)[:, flat_index(point, (height, width))] = 1
        with no_autocast(x):
            for column, row in reversed(weights):
                along_columns = torch.einsum("bhw,bhwg->bgw", reach, column)
                reach = along_columns + torch.einsum("bhw,bhwv->bhv", reach, row)
        return {"query": reach}
