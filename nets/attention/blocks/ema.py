"""Efficient multi-scale attention: a coordinate branch and a convolution weigh each other.

Ouyang, He, Zhang, Luo, Guo, Zhan, Huang: Efficient Multi-Scale Attention Module with Cross-Spatial
Learning, ICASSP 2023, arXiv 2305.13563

The channels form G groups of d = C / G, each an image u of its own; the layers are shared:

    a = W mean over W of u, b = W mean over H of u     (B G, d, H, 1), (B G, d, 1, W)
    p = GN(u * sigmoid(a) * sigmoid(b))                (B G, d, H, W), normalized per channel
    q = conv3x3 u                                      (B G, d, H, W)
    t = <softmax(mean of p), q> + <softmax(mean of q), p>    (B G, 1, H, W), products over d
    y = u * sigmoid(t)                                 (B G, d, H, W), which is (B, C, H, W)

W is a 1x1 convolution; all layers have biases.
"""

import torch
from torch import Tensor, nn

from nets.attention.base import GroupGate
from nets.attention.layers import GroupNorm, fit_groups, upcast
from nets.attention.options import PositiveInt
from nets.attention.registry import register


@register("ema", family="mixed", paper="Ouyang et al.: EMA, ICASSP 2023, arXiv 2305.13563")
class MultiScaleAttention(GroupGate):
    """Efficient multi-scale attention.

    Args:
        channels: C.
        groups: G, >= 1, reduced to a divisor of C; 32 as in the authors' code.

    Traps:
        - p is normalized per channel, so its mean is the bias of the norm: softmax(mean of p) does
          not look at the image, and is uniform at start.
    """

    def __init__(self, channels: int, *, groups: PositiveInt = 32) -> None:
        super().__init__()
        self.groups = fit_groups(groups, channels)
        width = channels // self.groups
        self.conv1x1 = nn.Conv2d(width, width, 1)
        self.conv3x3 = nn.Conv2d(width, width, 3, padding=1)
        self.norm = GroupNorm(width, width)

    def _by_coordinates(self, folded: Tensor) -> Tensor:
        """The features p."""
        rows = folded.mean(3, keepdim=True)
        columns = folded.mean(2, keepdim=True).transpose(2, 3)
        gates = self.conv1x1(torch.cat([rows, columns], 2)).sigmoid()
        by_row, by_column = gates.split(list(folded.shape[2:]), 2)
        return self.norm(folded * by_row * by_column.transpose(2, 3))

    def group_gate(self, folded: Tensor) -> Tensor:
        normed, local = self._by_coordinates(folded), self.conv3x3(folded)
        # each channel of p is normalized over H x W: its mean is the bias
        by_norm = upcast(self.norm.bias).softmax(0).view(-1, 1, 1)
        by_local = upcast(local.mean((2, 3), keepdim=True)).softmax(1)
        return (by_norm * local + by_local * normed).sum(1, keepdim=True).sigmoid().to(folded.dtype)
