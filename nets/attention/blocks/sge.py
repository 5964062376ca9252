"""Spatial group-wise enhance: a group's positions count by their likeness to the group's mean.

Li, Hu, Yang: Spatial Group-wise Enhance, arXiv 1905.09646

The channels form G groups, each an image u of its own:

    t = sum over the channels of u * (mean over H, W of u)    (B G, 1, H, W)
    n = (t - mean of t) / (standard deviation of t + 1e-5)    (B G, 1, H, W)
    y = u * sigmoid(w_g n + b_g)                              which is (B, C, H, W)

w starts at 0 and b at 1: every gate at 0.73. On a map of one position, n = 0.
"""

import torch
from torch import Tensor, nn

from nets.attention.base import GroupGate
from nets.attention.layers import fit_groups, spatial_variance, upcast
from nets.attention.options import PositiveInt
from nets.attention.registry import register


@register("sge", family="spatial", paper="Li, Hu, Yang: SGE, 2019, arXiv 1905.09646")
class SpatialGroupEnhance(GroupGate):
    """Spatial group-wise enhance.

    Args:
        channels: C.
        groups: G, >= 1, reduced to a divisor of C; 64 as in the paper.

    Traps:
        - Other copies start with a bias of 0, every gate at 0.5, and have 8 groups.
    """

    def __init__(self, channels: int, *, groups: PositiveInt = 64) -> None:
        super().__init__()
        self.groups = fit_groups(groups, channels)
        self.weight = nn.Parameter(torch.zeros(self.groups))
        self.bias = nn.Parameter(torch.ones(self.groups))

    def group_gate(self, folded: Tensor) -> Tensor:
        wide = upcast(folded)  # the products pass 65504
        likeness = (wide * wide.mean((2, 3), keepdim=True)).sum(1, keepdim=True)
        centered = likeness - likeness.mean((2, 3), keepdim=True)
        # 1e-20: the root of 0 has no derivative
        deviation = (spatial_variance(centered.square()) + 1e-20).sqrt()
        normed = centered / (deviation + 1e-5)
        by_group = normed.reshape(-1, self.groups, *folded.shape[2:])
        scores = self.weight.view(-1, 1, 1) * by_group + self.bias.view(-1, 1, 1)
        return scores.sigmoid().reshape_as(normed).to(folded.dtype)
