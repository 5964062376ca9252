"""Convolutional block attention module: a channel gate, then a spatial gate.

Woo, Park, Lee, Kweon: CBAM: Convolutional Block Attention Module, ECCV 2018, arXiv 1807.06521

    F(z) = W2 relu(W1 z)                                                W1 (m, C), W2 (C, m)
    x1 = x * sigmoid(F(mean over H, W of x) + F(max over H, W of x))    (B, C, H, W)
    y = x1 * sigmoid(conv_k([mean over C of x1; max over C of x1]))     (B, C, H, W)

No biases; m = max(C // reduction, 1).
"""

from typing import Literal

import torch
from torch import Tensor, nn

from nets.attention.base import DualGate
from nets.attention.layers import BatchNorm2d, reduced_channels
from nets.attention.options import PositiveInt
from nets.attention.registry import register


class CBAMChannel(nn.Module):
    """Channel gate `(B, C, 1, 1)` from the mean and the maximum."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = reduced_channels(channels, reduction)
        self.fc1 = nn.Conv2d(channels, hidden, 1, bias=False)
        self.relu = nn.ReLU()
        self.fc2 = nn.Conv2d(hidden, channels, 1, bias=False)

    def _shared(self, pooled: Tensor) -> Tensor:
        return self.fc2(self.relu(self.fc1(pooled)))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)
        maximum = x.amax((2, 3), keepdim=True)
        return (self._shared(mean) + self._shared(maximum)).sigmoid()


class CBAMSpatial(nn.Module):
    """Spatial gate `(B, 1, H, W)` from the mean and the maximum over the channels."""

    def __init__(self, kernel_size: int, norm: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)
        self.bn = BatchNorm2d(1) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        planes = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return self.bn(self.conv1(planes)).sigmoid()


@register("cbam", family="mixed", paper="Woo, Park, Lee, Kweon: CBAM, ECCV 2018, arXiv 1807.06521")
class CBAM(DualGate):
    """Channel gate, then spatial gate.

    Args:
        channels: C.
        reduction: C over the hidden width m, >= 1; 8 as in the reference's YOLOv4-tiny, where the
            paper has 16.
        kernel_size: of the spatial gate, 7 (paper) or 3.
        norm: batch normalization after the spatial convolution, as in the authors' code and timm.

    Traps:
        - The authors' code and others stack [max; mean], here [mean; max]: swap the planes of the
          spatial convolution when weights are copied.
        - The paper's reduction is 16; the default 8 doubles the parameters.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: PositiveInt = 8,
        kernel_size: Literal[3, 7] = 7,
        norm: bool = False,
    ) -> None:
        super().__init__()
        self.channelattention = CBAMChannel(channels, reduction)
        self.spatialattention = CBAMSpatial(kernel_size, norm)

    def gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        channel = self.channelattention(x)
        return channel, self.spatialattention(x * channel)

    def forward(self, x: Tensor) -> Tensor:
        gated = x * self.channelattention(x)
        return gated * self.spatialattention(gated)
