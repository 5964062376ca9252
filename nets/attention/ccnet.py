"""Criss-cross attention: each position reads from its row and its column, twice, and so from everywhere.

ccnet  Huang, Wang, Huang, Huang, Wei, Liu: CCNet: Criss-Cross Attention for Semantic Segmentation, ICCV 2019,
       arXiv 1811.11721

q, k (B, C/8, H, W), v (B, C, H, W): 1x1 convolutions with bias
position (h, w) scores its column (h', w) and its row (h, w'), itself once: H + W - 1 keys, one softmax over all
y = x + gamma * sum A v, gamma starts at 0; applied R times with the same weights (R = 2 links every pair)
"""

import torch
from torch import Tensor, nn

from nets.attention.layers import AttentionBlock, Maps, full, narrow, no_autocast, position
from nets.attention.options import Count
from nets.attention.registry import register


@register(
    "ccnet", family="self_attention", paper="Huang et al.: CCNet, ICCV 2019, arXiv 1811.11721"
)
class CrissCross(AttentionBlock):
    """Criss-cross attention. `recurrence` R: 1 sees only the cross."""

    identity_at_start = True
    zero_gradient = ("key.bias",)  # the same for all keys of a query: the softmax cancels it

    def __init__(self, channels: int, *, reduction: Count = 8, recurrence: Count = 2) -> None:
        super().__init__()
        hidden = narrow(channels, reduction)
        self.query = nn.Conv2d(channels, hidden, 1)
        self.key = nn.Conv2d(channels, hidden, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(()))
        self.recurrence = recurrence

    def _weights(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weights on the column (B, H, W, H) and on the row (B, H, W, W); together they sum to 1. float32."""
        query, key = full(self.query(x)), full(self.key(x))
        with no_autocast(x):
            column = torch.einsum("bchw,bcgw->bhwg", query, key)
            row = torch.einsum("bchw,bchv->bhwv", query, key)
        itself = torch.eye(x.shape[2], dtype=torch.bool, device=x.device)[
            :, None
        ]  # (H, 1, H): counted in the row
        weights = torch.cat([column.masked_fill(itself, float("-inf")), row], 3).softmax(3)
        return weights[..., : x.shape[2]], weights[..., x.shape[2] :]

    def _once(self, x: Tensor) -> Tensor:
        column, row = self._weights(x)
        value = self.value(x)
        with no_autocast(x):
            attended = torch.einsum("bhwg,bcgw->bchw", column, full(value))
            attended = attended + torch.einsum("bhwv,bchv->bchw", row, full(value))
        return x + self.gamma * attended.to(value.dtype)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.recurrence):
            x = self._once(x)
        return x

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> Maps:
        """`query`: the flow of attention from `point` through all R steps, backwards from the last."""
        steps = []
        for _ in range(self.recurrence):
            steps.append(self._weights(x))
            x = self._once(x)
        reach = torch.zeros(x.shape[0], *x.shape[2:], dtype=steps[0][0].dtype, device=x.device)
        reach.flatten(1)[:, position(point, x.shape[2:])] = 1
        with no_autocast(x):
            for column, row in reversed(steps):
                reach = torch.einsum("bhw,bhwg->bgw", reach, column) + torch.einsum(
                    "bhw,bhwv->bhv", reach, row
                )
        return {"query": reach}
