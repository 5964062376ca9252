"""Attention through a few slots instead of all pairs of positions: linear in N.

external  Guo, Liu, Mu, Hu: Beyond Self-attention: External Attention Using Two Linear Layers for Visual Tasks,
          TPAMI 2023, arXiv 2105.02358
          A = M_k x (B, S, N); softmax over the N positions, then divided by the sum over the S slots: two norms on two
          axes; y = x + M_v A. M_k (C -> S) and M_v (S -> C) are memories learnt over the whole dataset.
a2        Chen, Kalantidis, Li, Yan, Feng: A^2-Nets: Double Attention Networks, NeurIPS 2018, arXiv 1810.11579
          A = W_A x (B, m, N); Bm = softmax over N of W_B x (B, n, N); V = softmax over the n of W_V x (B, n, N)
          gather G = A Bm^T (B, m, n): n summaries of the image; distribute G V (B, m, N); y = x + W_R (G V)
"""

import torch
from torch import Tensor, nn

from nets.attention.layers import (
    AttentionBlock,
    BatchNorm2d,
    Maps,
    full,
    narrow,
    no_autocast,
    position,
)
from nets.attention.options import Count
from nets.attention.registry import register


@register(
    "external",
    family="self_attention",
    paper="Guo, Liu, Mu, Hu: External Attention, TPAMI 2023, arXiv 2105.02358",
)
class External(AttentionBlock):
    """External attention with `slots` S. `projections`: 1x1 before, 1x1 and BN after, as in the authors' block."""

    def __init__(
        self, channels: int, *, slots: Count = 64, residual: bool = True, projections: bool = False
    ) -> None:
        super().__init__()
        self.before = nn.Conv2d(channels, channels, 1) if projections else nn.Identity()
        self.memory_key = nn.Conv2d(channels, slots, 1, bias=False)
        self.memory_value = nn.Conv2d(slots, channels, 1, bias=False)
        after = (
            [nn.Conv2d(channels, channels, 1, bias=False), BatchNorm2d(channels)]
            if projections
            else []
        )
        self.after = nn.Sequential(*after)
        self.residual = residual
        self.zero_gradient = (
            ("before.bias",) if projections else ()
        )  # the softmax over positions cancels it

    def _weights(self, x: Tensor) -> Tensor:
        """(B, S, N), float32: the slots of a position sum to 1."""
        weights = full(self.memory_key(self.before(x)).flatten(2)).softmax(2)
        return weights / (weights.sum(1, keepdim=True) + 1e-9)

    def forward(self, x: Tensor) -> Tensor:
        weights = self._weights(x).to(x.dtype).unflatten(2, x.shape[2:])
        y = self.after(self.memory_value(weights))
        return x + y if self.residual else y

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> Maps:
        """`query`: positions that use the same slots as `point`, its slot weights times theirs."""
        weights = self._weights(x)
        chosen = weights[:, :, position(point, x.shape[2:])]
        return {"query": torch.einsum("bs,bsn->bn", chosen, weights).unflatten(1, x.shape[2:])}


@register(
    "a2", family="self_attention", paper="Chen et al.: A^2-Nets, NeurIPS 2018, arXiv 1810.11579"
)
class DoubleAttention(AttentionBlock):
    """Double attention. `c_m`: width of the summaries, `c_n`: their number; null is C // 4."""

    zero_gradient = ("gather.bias",)  # the same for all positions of a softmax over them

    def __init__(
        self,
        channels: int,
        *,
        c_m: Count | None = None,
        c_n: Count | None = None,
        residual: bool = True,
    ) -> None:
        super().__init__()
        width, number = c_m or narrow(channels, 4), c_n or narrow(channels, 4)
        self.features = nn.Conv2d(channels, width, 1)
        self.gather = nn.Conv2d(channels, number, 1)
        self.distribute = nn.Conv2d(channels, number, 1)
        self.out = nn.Conv2d(width, channels, 1)
        self.residual = residual

    def _weights(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Bm: rows sum to 1 over N; V: columns sum to 1 over the n. Both (B, n, N), float32."""
        return full(self.gather(x).flatten(2)).softmax(2), full(
            self.distribute(x).flatten(2)
        ).softmax(1)

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        gather, distribute = self._weights(x)
        with no_autocast(x):
            summaries = full(features).flatten(2) @ gather.transpose(1, 2)
            spread = (summaries @ distribute).to(features.dtype)
        y = self.out(spread.unflatten(2, x.shape[2:]))
        return x + y if self.residual else y

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> Maps:
        """`query`: the weight of every position in what `point` receives, sum over n of V[n, point] Bm[n, j]."""
        gather, distribute = self._weights(x)
        chosen = distribute[:, :, position(point, x.shape[2:])]
        return {"query": torch.einsum("bs,bsn->bn", chosen, gather).unflatten(1, x.shape[2:])}
