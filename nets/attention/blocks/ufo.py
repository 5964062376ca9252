"""UFO-ViT's attention: norms instead of the softmax, so that k^T v comes first, in linear time.

Song: UFO-ViT: High Performance Linear Vision Transformer without Softmax, 2021, arXiv 2109.14382

    q, k, v = conv1x1(x)                     with bias, (B, h, N, d), h heads of d = C / h channels
    XN(t) = g t / |t|                        over the last axis; one learned g a head, starts at 1
    S = k^T v                                (B, h, d, d)
    y = x + conv1x1(XN(q) XN(S))             (B, C, H, W), with bias

S is normalized along its rows of d values.
"""

import torch
from torch import Tensor, nn

from nets.attention.base import AttentionMaps, ResidualAttention
from nets.attention.layers import (
    check_heads,
    flat_index,
    join_channels,
    no_autocast,
    split_channels,
    upcast,
)
from nets.attention.options import PositiveInt
from nets.attention.registry import register


@register("ufo", family="self_attention", paper="Song: UFO-ViT, 2021, arXiv 2109.14382")
class UFO(ResidualAttention):
    """UFO-ViT's attention; its map has both signs and no fixed sum, and is the mean of the heads.

    Args:
        channels: C.
        heads: the number h, divides C.
        residual: add x.

    Traps:
        - Only directions count: twice the features give the same branch, biases aside.
        - Which axis of S the paper normalizes is not certain.
    """

    def __init__(self, channels: int, *, heads: PositiveInt = 8, residual: bool = True) -> None:
        super().__init__(residual)
        self.heads = check_heads("ufo.heads", heads, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.gain = nn.Parameter(torch.ones(heads, 1, 1))
        self.out = nn.Conv2d(channels, channels, 1)

    def _query_key_value(self, x: Tensor) -> list[Tensor]:
        """Three tensors (B, h, N, d), float32."""
        return [split_channels(upcast(part), self.heads) for part in self.qkv(x).chunk(3, 1)]

    def _normalized(self, x: Tensor) -> Tensor:
        return upcast(self.gain) * x / x.norm(dim=3, keepdim=True).clamp(min=1e-12)

    def attended(self, x: Tensor) -> Tensor:
        query, key, value = self._query_key_value(x)
        with no_autocast(x):
            summary = self._normalized(key.transpose(2, 3) @ value)
            attended = self._normalized(query) @ summary
        return self.out(join_channels(attended, x.shape[2:]).to(x.dtype))

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        """`query`: how much of each position's values the output at `point` holds."""
        index = flat_index(point, x.shape[2:])
        query, key, value = self._query_key_value(x)
        with no_autocast(x):
            lengths = (key.transpose(2, 3) @ value).norm(dim=3).clamp(min=1e-12)  # (B, h, d)
            keys = upcast(self.gain) * key / lengths[:, :, None]
            row = self._normalized(query)[:, :, index : index + 1] @ keys.transpose(2, 3)
        return {"query": row[:, :, 0].mean(1).unflatten(1, x.shape[2:])}
