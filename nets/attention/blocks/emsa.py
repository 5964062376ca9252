"""Efficient multi-head self-attention: keys and values from a coarser grid.

Zhang, Yang: ResT: An Efficient Transformer for Visual Recognition, NeurIPS 2021, arXiv 2105.13677

    q = linear(x)                            (B, h, N, C / h)
    k, v = linear(LN(conv x))                (B, h, N', C / h)
    e = q k^T / sqrt(C / h)                  (B, h, N, N')
    A = IN(softmax over N' of conv1x1(e))    (B, h, N, N')
    y = x + linear(A v)                      (B, C, H, W)

conv is depthwise: kernel sr + 1, stride sr, padding sr // 2. conv1x1 mixes the heads. IN normalizes
every (N, N') map, so that rows of A sum to 0: the block adds deviations from the mean. Without
`transform`, A = softmax over N' of e.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.attention.base import AttentionBlock, AttentionMaps
from nets.attention.layers import (
    check_heads,
    dot_product_weights,
    flat_index,
    from_tokens,
    merge_heads,
    no_autocast,
    scaled_dot_product,
    split_heads,
    spread_weights,
    to_tokens,
    upcast,
)
from nets.attention.options import PositiveInt, SmallInt
from nets.attention.registry import register


@register(
    "emsa", family="self_attention", paper="Zhang, Yang: ResT, NeurIPS 2021, arXiv 2105.13677"
)
class EMSA(AttentionBlock):
    """Efficient multi-head self-attention; its map is the mean of the heads.

    Args:
        channels: C.
        heads: the number h, divides C; None: max(C // 64, 1), as in the paper's stages.
        sr_ratio: the stride sr, >= 1; 1 keeps all keys, without convolution and LayerNorm.
        transform: mix the heads and normalize, as in the paper; left out for a single head, and on
            a 1 x 1 map, which has no variance.
        qkv_bias: biases in the linear maps to q, k and v.
        residual: add x.

    Traps:
        - With `transform`, rows of A sum to 0, and how sharp they are depends on the size of the
          map.
        - The norm in it makes a fresh branch larger than x: correlation with the input 0.5.
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: PositiveInt | None = None,
        sr_ratio: SmallInt = 2,
        transform: bool = True,
        qkv_bias: bool = True,
        residual: bool = True,
    ) -> None:
        super().__init__()
        self.heads = check_heads("emsa.heads", heads or max(channels // 64, 1), channels)
        self.scale = (channels // self.heads) ** -0.5
        self.q = nn.Linear(channels, channels, qkv_bias)
        self.kv = nn.Linear(channels, 2 * channels, qkv_bias)
        self.out = nn.Linear(channels, channels)
        self.residual = residual
        self.reduce = self.norm = self.mix = None
        self.step = sr_ratio
        if sr_ratio > 1:
            self.reduce = nn.Conv2d(
                channels, channels, sr_ratio + 1, sr_ratio, sr_ratio // 2, groups=channels
            )
            self.norm = nn.LayerNorm(channels)
            self.min_side = 1 + sr_ratio % 2  # an odd sr needs two positions per axis
        if transform and self.heads > 1:
            self.mix = nn.Conv2d(self.heads, self.heads, 1)
            self.zero_gradient = self._cancelled_biases()

    def _cancelled_biases(self) -> tuple[str, ...]:
        """Biases that shift all keys or values alike: the softmax and rows of sum 0 cancel them."""
        cancelled = ["mix.bias"]
        if self.kv.bias is not None:
            cancelled.append("kv.bias")
        if self.norm is not None:
            cancelled.append("norm.bias")
        return tuple(cancelled)

    def _coarse_tokens(self, x: Tensor) -> tuple[Tensor, torch.Size]:
        """Tokens (B, N', C) of the coarser grid, and its size."""
        if self.reduce is None or self.norm is None:
            return to_tokens(x), x.shape[2:]
        height, width = x.shape[2:]
        if min(height, width) < self.min_side:
            x = F.pad(x, (0, max(0, self.min_side - width), 0, max(0, self.min_side - height)))
        coarse = self.reduce(x)
        return self.norm(to_tokens(coarse)), coarse.shape[2:]

    def _query(self, x: Tensor) -> Tensor:
        return split_heads(self.q(to_tokens(x)), self.heads)

    def _key_value(self, x: Tensor) -> tuple[Tensor, Tensor, torch.Size]:
        """Keys, values, and the size of their grid."""
        tokens, grid = self._coarse_tokens(x)
        key, value = self.kv(tokens).chunk(2, 2)
        return split_heads(key, self.heads), split_heads(value, self.heads), grid

    def _transformed_weights(self, query: Tensor, key: Tensor) -> Tensor:
        """Mixed and normalized weights (B, h, N, N'), float32."""
        assert self.mix is not None
        with no_autocast(query):
            scores = self.scale * upcast(query) @ upcast(key).transpose(2, 3)
            mixed = F.conv2d(scores, upcast(self.mix.weight), upcast(self.mix.bias))  # type: ignore[arg-type]
            return F.instance_norm(mixed.softmax(3))

    def _transforms(self, x: Tensor) -> bool:
        return self.mix is not None and x.shape[2] * x.shape[3] > 1

    def forward(self, x: Tensor) -> Tensor:
        key, value, _ = self._key_value(x)
        query = self._query(x)
        if self._transforms(x):
            with no_autocast(x):
                weights = self._transformed_weights(query, key)
                attended = (weights @ upcast(value)).to(value.dtype)
        else:
            attended = scaled_dot_product(query, key, value, self.scale)
        y = from_tokens(self.out(merge_heads(attended)), x.shape[2:])
        return x + y if self.residual else y

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        index = flat_index(point, x.shape[2:])
        key, _, grid = self._key_value(x)
        query = self._query(x)
        if self._transforms(x):  # the norm's mean and variance need all rows
            row = self._transformed_weights(query, key)[:, :, index]
        else:
            row = dot_product_weights(query[:, :, index : index + 1], key, self.scale)[:, :, 0]
        return {"query": spread_weights(row.mean(1).unflatten(1, grid), x.shape[2:], self.step)}
