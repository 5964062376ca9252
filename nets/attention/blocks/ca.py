"""Coordinate attention: channel gates that depend on the row and the column.

Hou, Zhou, Feng: Coordinate Attention for Efficient Mobile Network Design, CVPR 2021,
arXiv 2103.02907

    h = mean over W of x                     (B, C, H, 1)
    w = mean over H of x                     (B, C, 1, W)
    t = act(BN(conv1x1([h; w])))             (B, m, H + W, 1), w transposed and put below h
    y = x * sigmoid(F_h t_h) * sigmoid(F_w t_w)   (B, C, H, W)

F_h and F_w are 1x1 convolutions m -> C, m = max(C // reduction, min_channels).
"""

from typing import Literal

import torch
from torch import Tensor, nn

from nets.attention.base import CoordinateGate
from nets.attention.layers import BatchNorm2d
from nets.attention.options import PositiveInt
from nets.attention.registry import register


@register(
    "ca", family="mixed", paper="Hou, Zhou, Feng: Coordinate Attention, CVPR 2021, arXiv 2103.02907"
)
class CoordinateAttention(CoordinateGate):
    """Coordinate attention; the defaults are those of the reference's YOLOv4-tiny.

    The authors' block is reduction 32, min_channels 8, hardswish, with biases.

    Args:
        channels: C.
        reduction: C over the hidden width m, >= 1.
        min_channels: smallest m, >= 1.
        activation: relu or hardswish.
        bias: biases in all three convolutions.

    Traps:
        - The authors' block has other defaults, see above: name the options when results are
          compared.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: PositiveInt = 16,
        min_channels: PositiveInt = 1,
        activation: Literal["relu", "hardswish"] = "relu",
        bias: bool = False,
    ) -> None:
        super().__init__()
        hidden = max(channels // reduction, min_channels)
        self.conv_1x1 = nn.Conv2d(channels, hidden, 1, bias=bias)
        self.bn = BatchNorm2d(hidden)
        self.activation = nn.ReLU() if activation == "relu" else nn.Hardswish()
        self.F_h = nn.Conv2d(hidden, channels, 1, bias=bias)
        self.F_w = nn.Conv2d(hidden, channels, 1, bias=bias)
        if bias:  # the batch normalization cancels it
            self.zero_gradient = ("conv_1x1.bias",)

    def gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        height, width = x.shape[2:]
        rows = x.mean(3, keepdim=True)
        columns = x.mean(2, keepdim=True).transpose(2, 3)
        hidden = self.activation(self.bn(self.conv_1x1(torch.cat([rows, columns], 2))))
        rows, columns = hidden.split([height, width], 2)
        return self.F_h(rows).sigmoid(), self.F_w(columns).sigmoid().transpose(2, 3)
