"""Multi-head attention of transformers on feature maps, the positions as tokens t (B, N, C).

mhsa  Vaswani et al.: Attention Is All You Need, NIPS 2017, arXiv 1706.03762
      q, k, v = linear maps of t in h heads of C/h; softmax(q k^T / sqrt(C/h)) v; linear; y = x + out.
      No position code: shuffling the positions of x shuffles those of y.
emsa  Zhang, Yang: ResT: An Efficient Transformer for Visual Recognition, NeurIPS 2021, arXiv 2105.13677
      k and v from a coarser grid: depthwise conv (kernel sr+1, stride sr, padding sr//2) and LayerNorm: N' < N keys;
      e = q k^T / sqrt(C/h) (B, h, N, N'); transform: 1x1 conv across heads, softmax over keys, InstanceNorm over each
      (N, N') map; y = x + W_o (A v). After the InstanceNorm rows sum to 0: the block adds deviations from the mean.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.attention.layers import (
    AttentionBlock,
    Maps,
    attend,
    attention_row,
    check_heads,
    full,
    no_autocast,
    position,
    spread,
)
from nets.attention.options import Count, Share
from nets.attention.registry import register

Heads = tuple[Tensor, Tensor, Tensor]


def _tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, N, C)."""
    return x.flatten(2).transpose(1, 2)


def _split(tokens: Tensor, heads: int) -> Tensor:
    """(B, N, C) -> (B, h, N, C/h)."""
    return tokens.unflatten(2, (heads, -1)).transpose(1, 2)


def _join(heads: Tensor) -> Tensor:
    """(B, h, N, C/h) -> (B, N, C)."""
    return heads.transpose(1, 2).flatten(2)


@register(
    "mhsa",
    family="self_attention",
    paper="Vaswani et al.: Attention Is All You Need, NIPS 2017, arXiv 1706.03762",
)
class MHSA(AttentionBlock):
    """Multi-head self-attention. `heads` divides C. `dropout`: of the weights, in training. Images: mean of heads."""

    def __init__(
        self,
        channels: int,
        *,
        heads: Count = 8,
        bias: bool = True,
        dropout: Share = 0.0,
        residual: bool = True,
    ) -> None:
        super().__init__()
        self.heads = check_heads("mhsa.heads", heads, channels)
        self.scale = (channels // heads) ** -0.5
        self.qkv = nn.Linear(channels, 3 * channels, bias)
        self.out = nn.Linear(channels, channels, bias)
        self.dropout, self.residual = dropout, residual

    def _heads(self, x: Tensor) -> Heads:
        query, key, value = (_split(part, self.heads) for part in self.qkv(_tokens(x)).chunk(3, 2))
        return query, key, value

    def forward(self, x: Tensor) -> Tensor:
        mixed = attend(
            *self._heads(x), scale=self.scale, dropout=self.dropout if self.training else 0.0
        )
        y = self.out(_join(mixed)).transpose(1, 2).unflatten(2, x.shape[2:])
        return x + y if self.residual else y

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> Maps:
        index = position(point, x.shape[2:])
        query, key, _ = self._heads(x)
        row = attention_row(query[:, :, index : index + 1], key, self.scale)
        return {"query": row[:, :, 0].mean(1).unflatten(1, x.shape[2:])}


@register(
    "emsa", family="self_attention", paper="Zhang, Yang: ResT, NeurIPS 2021, arXiv 2105.13677"
)
class EMSA(AttentionBlock):
    """Efficient multi-head self-attention. `heads`: null is max(C // 64, 1). `sr_ratio`: 1 keeps all keys.

    `transform`: mixing of heads and InstanceNorm; left out for one head, and on a 1 x 1 map, which has no variance.
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: Count | None = None,
        sr_ratio: Count = 2,
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
        if sr_ratio > 1:
            self.reduce = nn.Conv2d(
                channels, channels, sr_ratio + 1, sr_ratio, sr_ratio // 2, groups=channels
            )
            self.norm = nn.LayerNorm(channels)
            self.least = 1 + sr_ratio % 2
        if transform and self.heads > 1:
            self.mix = nn.Conv2d(self.heads, self.heads, 1)
            # all of these shift every key or value alike, which softmax and zero-sum rows cancel
            biases = {"kv.bias": qkv_bias, "norm.bias": sr_ratio > 1, "mix.bias": True}
            self.zero_gradient = tuple(name for name, there in biases.items() if there)

    def _coarse(self, x: Tensor) -> tuple[Tensor, torch.Size]:
        """Tokens (B, N', C) of the coarser grid, and its size."""
        if self.reduce is None or self.norm is None:
            return _tokens(x), x.shape[2:]
        if min(x.shape[2:]) < self.least:  # an odd sr_ratio needs two positions an axis
            x = F.pad(x, (0, max(0, self.least - x.shape[3]), 0, max(0, self.least - x.shape[2])))
        coarse = self.reduce(x)
        return self.norm(_tokens(coarse)), coarse.shape[2:]

    def _heads(self, x: Tensor) -> tuple[Heads, torch.Size]:
        coarse, grid = self._coarse(x)
        key, value = (_split(part, self.heads) for part in self.kv(coarse).chunk(2, 2))
        return (_split(self.q(_tokens(x)), self.heads), key, value), grid

    def _transformed(self, query: Tensor, key: Tensor) -> Tensor:
        """Mixed, normalized weights (B, h, N, N'), float32."""
        assert self.mix is not None
        with no_autocast(query):
            scores = self.scale * full(query) @ full(key).transpose(2, 3)
            mixed = F.conv2d(scores, full(self.mix.weight), full(self.mix.bias))  # type: ignore[arg-type]
            return F.instance_norm(mixed.softmax(3))

    def _transforms(self, x: Tensor) -> bool:
        return self.mix is not None and x.shape[2] * x.shape[3] > 1

    def forward(self, x: Tensor) -> Tensor:
        (query, key, value), _ = self._heads(x)
        if self._transforms(x):
            with no_autocast(x):
                mixed = (self._transformed(query, key) @ full(value)).to(value.dtype)
        else:
            mixed = attend(query, key, value, scale=self.scale)
        y = self.out(_join(mixed)).transpose(1, 2).unflatten(2, x.shape[2:])
        return x + y if self.residual else y

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> Maps:
        index = position(point, x.shape[2:])
        (query, key, _), grid = self._heads(x)
        if self._transforms(x):  # the norm's mean and variance need all rows
            row = self._transformed(query, key)[:, :, index]
        else:
            row = attention_row(query[:, :, index : index + 1], key, self.scale)[:, :, 0]
        return {"query": spread(row.mean(1).unflatten(1, grid), x.shape[2:])}
