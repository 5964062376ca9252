"""Double attention: gather the map into a few summaries, distribute them to the positions.

Chen, Kalantidis, Li, Yan, Feng: A^2-Nets: Double Attention Networks, NeurIPS 2018, arXiv 1810.11579

    A = W_A x                                (B, m, N), 1x1 convolutions with bias
    Bm = softmax over N of W_B x             (B, n, N)
    V = softmax over n of W_V x              (B, n, N)
    G = A Bm^T                               (B, m, n)   gather
    y = x + W_R (G V)                        (B, C, H, W)   distribute
"""

import torch
from torch import Tensor, nn

from nets.attention.base import AttentionBlock, AttentionMaps
from nets.attention.layers import flat_index, no_autocast, reduced_channels, upcast
from nets.attention.options import PositiveInt
from nets.attention.registry import register


@register(
    "a2", family="self_attention", paper="Chen et al.: A^2-Nets, NeurIPS 2018, arXiv 1810.11579"
)
class DoubleAttention(AttentionBlock):
    """Double attention.

    Args:
        channels: C.
        c_m: width m of the summaries, >= 1; None: C // 4, as in the paper.
        c_n: number n of the summaries, >= 1; None: C // 4, as in the paper.
        residual: add x.

    Traps:
        - A softmax without an axis, as in a common copy, runs over the images of a batch.
    """

    zero_gradient = ("gather.bias",)  # the same for all positions: the softmax cancels it

    def __init__(
        self,
        channels: int,
        *,
        c_m: PositiveInt | None = None,
        c_n: PositiveInt | None = None,
        residual: bool = True,
    ) -> None:
        super().__init__()
        width = c_m or reduced_channels(channels, 4)
        number = c_n or reduced_channels(channels, 4)
        self.features = nn.Conv2d(channels, width, 1)
        self.gather = nn.Conv2d(channels, number, 1)
        self.distribute = nn.Conv2d(channels, number, 1)
        self.out = nn.Conv2d(width, channels, 1)
        self.residual = residual

    def _weights(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Bm and V, both (B, n, N), float32."""
        gather = upcast(self.gather(x).flatten(2)).softmax(2)
        distribute = upcast(self.distribute(x).flatten(2)).softmax(1)
        return gather, distribute

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        gather, distribute = self._weights(x)
        with no_autocast(x):
            summaries = upcast(features).flatten(2) @ gather.transpose(1, 2)
            distributed = (summaries @ distribute).to(features.dtype)
        y = self.out(distributed.unflatten(2, x.shape[2:]))
        return x + y if self.residual else y

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        """`query`: what `point` receives from position j, sum over n of V[n, point] Bm[n, j]."""
        gather, distribute = self._weights(x)
        of_point = distribute[:, :, flat_index(point, x.shape[2:])]
        return {"query": torch.einsum("bs,bsn->bn", of_point, gather).unflatten(1, x.shape[2:])}
