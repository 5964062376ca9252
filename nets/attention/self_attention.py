"""Self-attention over positions: every position reads from every other.

self_attention  Zhang, Goodfellow, Metaxas, Odena: Self-Attention GANs (SAGAN), ICML 2019, arXiv 1805.08318
pam             position half of Fu et al.: Dual Attention Network, CVPR 2019, arXiv 1809.02983; the same formula

q = W_q x, k = W_k x  (B, C/8, N);  v = W_v x  (B, C, N): 1x1 convolutions with bias
A = softmax over j of q_i . k_j  (B, N, N), not divided by sqrt(d)
y_i = x_i + gamma * sum_j A_ij v_j, gamma one learnt number that starts at 0: the block starts as the identity

Time grows with N^2: keep it to maps of 26 x 26 and below. The fused kernel never stores A where it applies.
"""

import torch
from torch import Tensor, nn

from nets.attention.layers import AttentionBlock, Maps, attend, attention_row, narrow, position
from nets.attention.options import Count
from nets.attention.registry import register


class PositionAttention(nn.Module):
    """x -> sum_j A_ij v_j, (B, C, H, W): the attended values without gamma and residual."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = narrow(channels, reduction)
        self.query = nn.Conv2d(channels, hidden, 1)
        self.key = nn.Conv2d(channels, hidden, 1)
        self.value = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (_tokens(layer(x)) for layer in (self.query, self.key, self.value))
        return attend(query, key, value).transpose(1, 2).unflatten(2, x.shape[2:])

    def row(self, x: Tensor, point: tuple[int, int] | None) -> Tensor:
        """Row of A for one position, (B, H, W)."""
        index = position(point, x.shape[2:])
        query = _tokens(self.query(x))[:, index : index + 1]
        return attention_row(query, _tokens(self.key(x)))[:, 0].unflatten(1, x.shape[2:])


def _tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, N, C)."""
    return x.flatten(2).transpose(1, 2)


@register(
    "self_attention",
    family="self_attention",
    paper="Zhang et al.: SAGAN, ICML 2019, arXiv 1805.08318",
)
@register(
    "pam",
    family="self_attention",
    paper="Fu et al.: Dual Attention Network, CVPR 2019, arXiv 1809.02983",
)
class SelfAttention(AttentionBlock):
    """Self-attention with a learnt residual weight. `reduction`: C over the width of queries and keys."""

    identity_at_start = True
    zero_gradient = (
        "attended.key.bias",
    )  # the same for all keys of a query: the softmax cancels it

    def __init__(self, channels: int, *, reduction: Count = 8) -> None:
        super().__init__()
        self.attended = PositionAttention(channels, reduction)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma * self.attended(x)

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> Maps:
        return {"query": self.attended.row(x, point)}
