"""The fair control: plain convolution that spends as many parameters as an attention block, and attends to nothing.

conv_control  the bottleneck of He, Zhang, Ren, Sun: Deep Residual Learning, CVPR 2016, arXiv 1512.03385, figure 5
h channels wide: y = x + BN(conv1x1(f(BN(conv3x3(f(BN(conv1x1 x))))))), f leaky ReLU 0.1, (B, C, H, W) -> (B, C, H, W)
For budgets below h = 1: y = x + conv3x3 of the first m channels, added to these alone.
"""

import math

import torch
from torch import Tensor, nn

from nets.attention.layers import AttentionBlock, BatchNorm2d, Maps
from nets.attention.options import Count
from nets.attention.registry import register

PAPER = (
    "He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016, arXiv 1512.03385"
)


@register("conv_control", family="control", paper=PAPER)
class ConvControl(AttentionBlock):
    """Convolution with about `params` parameters; none: C^2 / 8, what se has at its default reduction of 16."""

    def __init__(self, channels: int, *, params: Count | None = None) -> None:
        super().__init__()
        budget = params or max(channels * channels // 8, 1)
        hidden = hidden_width(channels, budget)
        self.width = channels if hidden else partial_width(channels, budget)
        self.body = (
            _bottleneck(channels, hidden)
            if hidden
            else nn.Conv2d(self.width, self.width, 3, 1, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.width == x.shape[1]:
            return x + self.body(x)
        changed, kept = x[:, : self.width], x[:, self.width :]
        return torch.cat([changed + self.body(changed), kept], 1)

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> Maps:
        """`spatial`: how much the block changes each position, the mean of |y - x| over the channels."""
        return {"spatial": (self.forward(x) - x).abs().mean(1)}


def hidden_width(channels: int, params: int) -> int:
    """The bottleneck's width h >= 1 whose count, 9 h^2 + (2 C + 4) h + 2 C, is nearest; 0 where h = 1 is too much."""
    if params < 9 + 4 * channels + 4:
        return 0
    linear = 2 * channels + 4
    exact = (math.sqrt(linear**2 + 36 * (params - 2 * channels)) - linear) / 18
    return min(
        (math.floor(exact), math.ceil(exact)),
        key=lambda h: abs(9 * h * h + linear * h + 2 * channels - params),
    )


def partial_width(channels: int, params: int) -> int:
    """The number of channels m whose convolution, 9 m^2, is nearest."""
    exact = math.sqrt(params / 9)
    nearest = min((math.floor(exact), math.ceil(exact)), key=lambda m: abs(9 * m * m - params))
    return min(max(nearest, 1), channels)


def _bottleneck(channels: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 1, bias=False),
        BatchNorm2d(hidden),
        nn.LeakyReLU(0.1),
        nn.Conv2d(hidden, hidden, 3, padding=1, bias=False),
        BatchNorm2d(hidden),
        nn.LeakyReLU(0.1),
        nn.Conv2d(hidden, channels, 1, bias=False),
        BatchNorm2d(channels),
    )
