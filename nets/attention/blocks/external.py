"""External attention: positions attend to a few learned slots, linear in N.

Guo, Liu, Mu, Hu: Beyond Self-attention: External Attention Using Two Linear Layers for Visual
Tasks, TPAMI 2023, arXiv 2105.02358

    A = softmax over N of (M_k x)            (B, S, N), then divided by its sum over the S slots
    y = x + M_v A                            (B, C, H, W)

M_k (C -> S) and M_v (S -> C) are memories, learned over the whole dataset, without bias.
"""

import torch
from torch import Tensor, nn

from nets.attention.base import AttentionBlock, AttentionMaps
from nets.attention.layers import BatchNorm2d, flat_index, upcast
from nets.attention.options import PositiveInt
from nets.attention.registry import register


@register(
    "external",
    family="self_attention",
    paper="Guo, Liu, Mu, Hu: External Attention, TPAMI 2023, arXiv 2105.02358",
)
class External(AttentionBlock):
    """External attention.

    Args:
        channels: C.
        slots: the number S, >= 1; 64 as in the paper.
        residual: add x.
        projections: a 1x1 convolution before, and one with batch normalization after, as in the
            authors' block.

    Traps:
        - Two normalizations on two axes; one softmax over the slots would be another block.
    """

    def __init__(
        self,
        channels: int,
        *,
        slots: PositiveInt = 64,
        residual: bool = True,
        projections: bool = False,
    ) -> None:
        super().__init__()
        self.before = nn.Conv2d(channels, channels, 1) if projections else nn.Identity()
        self.memory_key = nn.Conv2d(channels, slots, 1, bias=False)
        self.memory_value = nn.Conv2d(slots, channels, 1, bias=False)
        self.after = nn.Sequential()
        if projections:
            self.after.append(nn.Conv2d(channels, channels, 1, bias=False))
            self.after.append(BatchNorm2d(channels))
            self.zero_gradient = ("before.bias",)  # the softmax over positions cancels it
        self.residual = residual

    def _weights(self, x: Tensor) -> Tensor:
        """A, (B, S, N), float32: the slots of a position sum to 1."""
        weights = upcast(self.memory_key(self.before(x)).flatten(2)).softmax(2)
        return weights / (weights.sum(1, keepdim=True) + 1e-9)

    def forward(self, x: Tensor) -> Tensor:
        weights = self._weights(x).to(x.dtype).unflatten(2, x.shape[2:])
        y = self.after(self.memory_value(weights))
        return x + y if self.residual else y

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        """`query`: positions that use the same slots as `point`, the product of their weights."""
        weights = self._weights(x)
        of_point = weights[:, :, flat_index(point, x.shape[2:])]
        return {"query": torch.einsum("bs,bsn->bn", of_point, weights).unflatten(1, x.shape[2:])}
