"""A fair control: plain convolution with as many parameters as an attention block.

The bottleneck of He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016,
arXiv 1512.03385, figure 5, h channels wide, f: leaky ReLU 0.1

    y = x + BN(conv1x1(f(BN(conv3x3(f(BN(conv1x1 x)))))))    (B, C, H, W)

For budgets below that of h = 1, the first m channels only:
    y = x + conv3x3 x                                        (B, m, H, W)
"""

import math

import torch
from torch import Tensor, nn

from nets.attention.base import AttentionBlock, AttentionMaps
from nets.attention.layers import BatchNorm2d, conv_norm_act
from nets.attention.options import ParameterCount
from nets.attention.registry import register

PAPER = (
    "He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016, arXiv 1512.03385"
)


@register("conv_control", family="control", paper=PAPER)
class ConvControl(AttentionBlock):
    """Convolution with about `params` parameters; its map is the size of its change.

    Args:
        channels: C.
        params: the budget, >= 1; None: C^2 / 8, what se has at its default reduction of 16.

    Traps:
        - No attention: it tells what as many parameters do without one.
    """

    def __init__(self, channels: int, *, params: ParameterCount | None = None) -> None:
        super().__init__()
        budget = params or max(channels * channels // 8, 1)
        hidden = hidden_width(channels, budget)
        self.width = channels if hidden else partial_width(channels, budget)
        self.body = (
            _bottleneck(channels, hidden)
            if hidden
            else nn.Conv2d(self.width, self.width, 3, padding=1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.width == x.shape[1]:
            return x + self.body(x)
        changed, unchanged = x[:, : self.width], x[:, self.width :]
        return torch.cat([changed + self.body(changed), unchanged], 1)

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        """`spatial`: the mean of |y - x| over the channels."""
        return {"spatial": (self.forward(x) - x).abs().mean(1)}


def hidden_width(channels: int, params: int) -> int:
    """Return the bottleneck's width whose number of parameters is nearest; 0 if 1 is too wide.

    A width h has 9 h^2 + (2 C + 4) h + 2 C parameters.
    """

    def count(width: int) -> int:
        return 9 * width**2 + linear * width + 2 * channels

    linear = 2 * channels + 4
    if params < count(1):
        return 0
    exact = (math.sqrt(linear**2 + 36 * (params - 2 * channels)) - linear) / 18
    return min((math.floor(exact), math.ceil(exact)), key=lambda h: abs(count(h) - params))


def partial_width(channels: int, params: int) -> int:
    """Return the number m of channels whose convolution, 9 m^2, is nearest; at most C."""
    exact = math.sqrt(params / 9)
    width = min((math.floor(exact), math.ceil(exact)), key=lambda m: abs(9 * m**2 - params))
    return min(max(width, 1), channels)


def _bottleneck(channels: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        *conv_norm_act(channels, hidden, activation=nn.LeakyReLU(0.1)),
        *conv_norm_act(hidden, hidden, 3, activation=nn.LeakyReLU(0.1)),
        nn.Conv2d(hidden, channels, 1, bias=False),
        BatchNorm2d(channels),
    )
