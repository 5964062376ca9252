"""Self-attention over positions: every position reads from every other.

Zhang, Goodfellow, Metaxas, Odena: Self-Attention Generative Adversarial Networks (SAGAN),
ICML 2019, arXiv 1805.08318

    q = W_q x, k = W_k x                     (B, C / reduction, N), 1x1 convolutions with bias
    v = W_v x                                (B, C, N)
    A = softmax over j of q_i . k_j          (B, N, N), not divided by sqrt(d)
    y_i = x_i + gamma * sum_j A_ij v_j       (B, C, H, W)

gamma is one learned number that starts at 0. The fused kernel never stores A.
"""

import torch
from torch import Tensor, nn

from nets.attention.base import AttentionBlock, AttentionMaps
from nets.attention.layers import (
    dot_product_weights,
    flat_index,
    from_tokens,
    reduced_channels,
    scaled_dot_product,
    to_tokens,
)
from nets.attention.options import PositiveInt
from nets.attention.registry import register


class AttendedValues(nn.Module):
    """Sum over j of A_ij v_j, without gamma and residual: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = reduced_channels(channels, reduction)
        self.query = nn.Conv2d(channels, hidden, 1)
        self.key = nn.Conv2d(channels, hidden, 1)
        self.value = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        query = to_tokens(self.query(x))
        key = to_tokens(self.key(x))
        value = to_tokens(self.value(x))
        return from_tokens(scaled_dot_product(query, key, value), x.shape[2:])

    def row(self, x: Tensor, point: tuple[int, int] | None) -> Tensor:
        """The row of A for one position, (B, H, W)."""
        index = flat_index(point, x.shape[2:])
        query = to_tokens(self.query(x))[:, index : index + 1]
        weights = dot_product_weights(query, to_tokens(self.key(x)))
        return weights[:, 0].unflatten(1, x.shape[2:])


@register(
    "self_attention",
    family="self_attention",
    paper="Zhang et al.: SAGAN, ICML 2019, arXiv 1805.08318",
)
class SelfAttention(AttentionBlock):
    """Self-attention with a learned residual weight.

    Args:
        channels: C.
        reduction: C over the width of queries and keys, >= 1; 8 as in the paper.

    Traps:
        - Time grows with N^2: keep it to maps of 26 x 26 and below.
        - Scores are not divided by sqrt(d): with large features the softmax picks single positions.
    """

    identity_at_start = True
    zero_gradient = ("attended.key.bias",)  # the same for all keys: the softmax cancels it

    def __init__(self, channels: int, *, reduction: PositiveInt = 8) -> None:
        super().__init__()
        self.attended = AttendedValues(channels, reduction)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma * self.attended(x)

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        return {"query": self.attended.row(x, point)}
