"""Triplet attention: three spatial gates, one per pair of the axes H, W and C.

Misra, Nalamada, Arasanipalai, Hou: Rotate to Attend: Convolutional Triplet Attention Module,
WACV 2021, arXiv 2010.03045

For each axis d of H, W and C:
    planes = [max over d of x; mean over d of x]    (B, 2, C, W), (B, 2, H, C) or (B, 2, H, W)
    g_d = sigmoid(BN(conv_k(planes)))               one plane, no bias; broadcast along d
    y = x * mean over d of g_d                      (B, C, H, W)

The convolutions treat neighboring channels as neighbors.
"""

import torch
from torch import Tensor, nn

from nets.attention.base import FeatureGate
from nets.attention.layers import BatchNorm2d
from nets.attention.options import OddInt
from nets.attention.registry import register

CHANNELS, ROWS, COLUMNS = 1, 2, 3  # axes of (B, C, H, W)


@register(
    "triplet", family="mixed", paper="Misra et al.: Rotate to Attend, WACV 2021, arXiv 2010.03045"
)
class Triplet(FeatureGate):
    """Triplet attention; pools along each axis directly, where the authors' code permutes x.

    Args:
        channels: C.
        kernel_size: of the convolutions, odd; 7 as in the paper.
        spatial: with the gate over H x W; without it the mean of the other two.

    Traps:
        - The convolutions over (C, W) and (H, C) treat neighboring channels as neighbors, and
          depend on their order.
    """

    def __init__(self, channels: int, *, kernel_size: OddInt = 7, spatial: bool = True) -> None:
        super().__init__()
        self.pooled_axes = (ROWS, COLUMNS, CHANNELS) if spatial else (ROWS, COLUMNS)
        self.gates = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False),
                BatchNorm2d(1),
                nn.Sigmoid(),
            )
            for _ in self.pooled_axes
        )

    def gate(self, x: Tensor) -> Tensor:
        gates = []
        for axis, layers in zip(self.pooled_axes, self.gates, strict=True):
            planes = torch.stack([x.amax(axis), x.mean(axis)], 1)
            if axis == COLUMNS:  # the paper's kernel lies on the plane (H, C), not (C, H)
                gate = layers(planes.transpose(2, 3)).transpose(2, 3)
            else:
                gate = layers(planes)
            gates.append(gate.squeeze(1).unsqueeze(axis))
        return (sum(gates) / len(gates)).expand_as(x)
