"""Multi-head self-attention of transformers, the positions of the map as tokens.

Vaswani et al.: Attention Is All You Need, NIPS 2017, arXiv 1706.03762

    q, k, v = linear maps of the tokens      (B, h, N, C / h)
    A = softmax(q k^T / sqrt(C / h))         (B, h, N, N)
    y = x + linear(A v)                      (B, C, H, W)
"""

from torch import Tensor, nn

from nets.attention.base import AttentionBlock, AttentionMaps
from nets.attention.layers import (
    check_heads,
    dot_product_weights,
    flat_index,
    from_tokens,
    merge_heads,
    scaled_dot_product,
    split_heads,
    to_tokens,
)
from nets.attention.options import DropoutRate, PositiveInt
from nets.attention.registry import register


@register(
    "mhsa",
    family="self_attention",
    paper="Vaswani et al.: Attention Is All You Need, NIPS 2017, arXiv 1706.03762",
)
class MHSA(AttentionBlock):
    """Multi-head self-attention; its map is the mean of the heads.

    Args:
        channels: C.
        heads: the number h, divides C; 8 as in the paper.
        bias: biases in all linear maps, as in `nn.MultiheadAttention`.
        dropout: probability of dropping a weight in training, in [0, 1).
        residual: add x.

    Traps:
        - There is no position code: shuffling the positions of x shuffles those of y.
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: PositiveInt = 8,
        bias: bool = True,
        dropout: DropoutRate = 0.0,
        residual: bool = True,
    ) -> None:
        super().__init__()
        self.heads = check_heads("mhsa.heads", heads, channels)
        self.scale = (channels // heads) ** -0.5
        self.qkv = nn.Linear(channels, 3 * channels, bias)
        self.out = nn.Linear(channels, channels, bias)
        self.dropout = dropout
        self.residual = residual

    def _query_key_value(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = self.qkv(to_tokens(x)).chunk(3, 2)
        heads = self.heads
        return split_heads(query, heads), split_heads(key, heads), split_heads(value, heads)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self._query_key_value(x)
        dropout = self.dropout if self.training else 0.0
        attended = scaled_dot_product(query, key, value, self.scale, dropout)
        y = from_tokens(self.out(merge_heads(attended)), x.shape[2:])
        return x + y if self.residual else y

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        index = flat_index(point, x.shape[2:])
        query, key, _ = self._query_key_value(x)
        row = dot_product_weights(query[:, :, index : index + 1], key, self.scale)
        return {"query": row[:, :, 0].mean(1).unflatten(1, x.shape[2:])}
