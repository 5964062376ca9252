"""Shuffle attention: half of every group of channels gets channel gates, half spatial gates.

Zhang, Yang: SA-Net: Shuffle Attention for Deep Convolutional Neural Networks, ICASSP 2021,
arXiv 2102.00240

The channels form G groups, each cut into halves u and v of d = C / 2G:

    u' = u * sigmoid(w1 z + b1)              (B G, d, H, W), z = mean over H, W of u
    v' = v * sigmoid(w2 GN(v) + b2)          (B G, d, H, W), normalized per channel
    y = shuffle([u'; v' of all groups])      (B, C, H, W), channel 2 i + j from i + j C / 2

w, b and the affine of GN have d values, shared by the groups. w starts at 0 and b at 1: every gate
at 0.73.
"""

import torch
from torch import Tensor, nn

from nets.attention.base import AttentionBlock, AttentionMaps
from nets.attention.layers import GroupNorm, fit_groups, fold_groups
from nets.attention.options import PositiveInt
from nets.attention.registry import register
from utils.core.errors import UserError


@register("shuffle", family="mixed", paper="Zhang, Yang: SA-Net, ICASSP 2021, arXiv 2102.00240")
class ShuffleAttention(AttentionBlock):
    """Shuffle attention.

    Args:
        channels: C, even.
        groups: G, >= 1, reduced to a divisor of C / 2; 64 as in the paper.

    Traps:
        - The block permutes the channels: behind pretrained layers, the next layer reads the wrong
          features.
    """

    def __init__(self, channels: int, *, groups: PositiveInt = 64) -> None:
        super().__init__()
        if channels % 2:
            raise UserError(f"shuffle: expected an even number of channels, got {channels}")
        self.groups = fit_groups(groups, channels // 2)
        width = channels // 2 // self.groups
        self.channel_weight = nn.Parameter(torch.zeros(width))
        self.channel_bias = nn.Parameter(torch.ones(width))
        self.spatial_weight = nn.Parameter(torch.zeros(width))
        self.spatial_bias = nn.Parameter(torch.ones(width))
        self.norm = GroupNorm(width, width)

    def _gates(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The halves of all groups, and their gates (B G, d, 1, 1) and (B G, d, H, W)."""
        by_channel, by_position = fold_groups(x, self.groups).chunk(2, 1)
        pooled = by_channel.mean((2, 3), keepdim=True)
        channel = _affine(pooled, self.channel_weight, self.channel_bias)
        spatial = _affine(self.norm(by_position), self.spatial_weight, self.spatial_bias)
        return [by_channel, by_position], [channel.sigmoid(), spatial.sigmoid()]

    def forward(self, x: Tensor) -> Tensor:
        halves, gates = self._gates(x)
        gated = torch.cat([half * gate for half, gate in zip(halves, gates, strict=True)], 1)
        parts = gated.reshape(-1, 2, x.shape[1] // 2, *x.shape[2:])
        return parts.transpose(1, 2).reshape_as(x)

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        """Return means of the gates, in the order of the input's channels."""
        halves, (channel, spatial) = self._gates(x)
        gate = torch.cat([channel.expand_as(halves[0]), spatial], 1).reshape_as(x)
        return {"channel": gate.mean((2, 3)), "spatial": gate.mean(1)}


def _affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return weight.view(-1, 1, 1) * x + bias.view(-1, 1, 1)
