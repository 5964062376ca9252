"""Attention-free transformer: weights per key and channel, without products of queries and keys.

Zhai, Talbott, Srivastava, Huang, Goh, Zhang, Susskind: An Attention Free Transformer, 2021,
arXiv 2105.14103

    q, k, v = conv1x1(x)                     (B, C, H, W), with bias
    y_i = x_i + s(q_i) sum_j e^(k_j + w(j - i)) v_j / sum_j e^(k_j + w(j - i))

s is the sigmoid; the sums are per channel and run over all positions. w(j - i) is a learned number
inside an S x S window around i, one table for each of h groups of channels, starts at 0, and is 0
outside. mode simple: no w. There is no output layer.

Linear in N: the sum without w, the same for all i, plus a depthwise convolution with e^w - 1. The
largest k is subtracted first, which cancels. The paper's other form, a number for each pair of
positions, fixes the size of the map.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.attention.base import AttentionMaps, ResidualAttention
from nets.attention.layers import check_heads, flat_index, no_autocast, upcast
from nets.attention.options import OddInt, PositiveInt
from nets.attention.registry import register


@register("aft", family="self_attention", paper="Zhai et al.: AFT, 2021, arXiv 2105.14103")
class AttentionFree(ResidualAttention):
    """Attention-free transformer; its map is the mean of the channels' weights.

    Args:
        channels: C.
        mode: conv or simple, see above.
        heads: tables h of mode conv, divides C.
        kernel_size: odd side S of the tables of mode conv.
        residual: add x.

    Traps:
        - There is no output layer, and no map of weights per query: all queries share the keys'
          weights but for w.
    """

    def __init__(
        self,
        channels: int,
        *,
        mode: Literal["conv", "simple"] = "conv",
        heads: PositiveInt = 8,
        kernel_size: OddInt = 7,
        residual: bool = True,
    ) -> None:
        super().__init__(residual)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.shared = channels // check_heads("aft.heads", heads, channels)
        self.table = None
        if mode == "conv":
            self.table = nn.Parameter(torch.zeros(heads, 1, kernel_size, kernel_size))

    def attended(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).chunk(3, 1)
        with no_autocast(x):
            key, value = upcast(key), upcast(value)
            powers = (key - key.amax((2, 3), keepdim=True)).exp()
            terms = torch.cat([powers * value, powers], 1)
            sums = terms.sum((2, 3), keepdim=True)
            if self.table is not None:
                kernels = upcast(self.table).expm1().repeat_interleave(self.shared, 0)
                side = kernels.shape[2]
                extra = F.conv2d(
                    terms, kernels.repeat(2, 1, 1, 1), padding=side // 2, groups=terms.shape[1]
                )
                sums = sums + extra
            weighted, total = sums.chunk(2, 1)
            mean = weighted / total
        return query.sigmoid() * mean.to(query.dtype)

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        size = x.shape[2:]
        scores = upcast(self.qkv(x).chunk(3, 1)[1])
        if self.table is not None:
            at_point = torch.zeros_like(scores[0, 0]).flatten()
            at_point[flat_index(point, size)] = 1
            table = self.table.flip(2, 3).to(scores.dtype)  # the window around the point
            around = F.conv2d(at_point.view(1, 1, *size), table, padding=table.shape[2] // 2)
            scores = scores + around.repeat_interleave(self.shared, 1)
        return {"query": scores.flatten(2).softmax(2).mean(1).unflatten(1, size)}
