"""Concurrent spatial and channel squeeze and excitation.

Roy, Navab, Wachinger: Concurrent Spatial and Channel Squeeze & Excitation in Fully Convolutional
Networks, MICCAI 2018, arXiv 1803.02579

    c = sigmoid(W2 relu(W1 z + b1) + b2)    (B, C, 1, 1), z = mean over H, W of x
    p = sigmoid(w . x + b)                  (B, 1, H, W)
    add: y = x * c + x * p                  (B, C, H, W), up to 2 x
    max: y = max(x * c, x * p)

W1 is (m, C) and W2 (C, m), m = max(C // reduction, 1).
"""

from typing import Literal

import torch
from torch import Tensor, nn

from nets.attention.base import DualGate
from nets.attention.layers import channel_mlp
from nets.attention.options import PositiveInt
from nets.attention.registry import register


@register("scse", family="mixed", paper="Roy et al.: scSE, MICCAI 2018, arXiv 1803.02579")
class ConcurrentSE(DualGate):
    """A channel gate and a spatial gate, side by side.

    Args:
        channels: C.
        reduction: C over the hidden width m, >= 1; 2 in the authors' code.
        combine: add (paper) or max (the authors' code).

    Traps:
        - add goes up to twice the input, max to the input.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: PositiveInt = 16,
        combine: Literal["add", "max"] = "add",
    ) -> None:
        super().__init__()
        self.channel = channel_mlp(channels, reduction)
        self.spatial = nn.Conv2d(channels, 1, 1)
        self.add = combine == "add"

    def gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pooled = x.mean((2, 3), keepdim=True)
        return self.channel(pooled).sigmoid(), self.spatial(x).sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        channel, spatial = self.gates(x)
        by_channel, by_position = x * channel, x * spatial
        return by_channel + by_position if self.add else torch.maximum(by_channel, by_position)
