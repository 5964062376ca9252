"""Linear context transform: a channel's weight depends on how its mean compares within its group.

Ruan, Wen, Zheng, Zheng: Linear Context Transform Block, AAAI 2020, arXiv 1909.03834

    z = mean over H, W of x                                       (B, C)
    n = (z - mean of the group) / sqrt(variance of the group + 1e-5)   (B, C), G groups of channels
    g_c = sigmoid(w_c n_c + b_c)                                  (B, C)
    y = x * g                                                     (B, C, H, W)

w starts at 0 and b at 1: every gate at 0.73.
"""

from torch import Tensor, nn

from nets.attention.base import ChannelGate
from nets.attention.layers import GroupNorm, fit_groups, upcast
from nets.attention.options import PositiveInt
from nets.attention.registry import register


@register(
    "lct", family="channel", paper="Ruan, Wen, Zheng, Zheng: LCT, AAAI 2020, arXiv 1909.03834"
)
class LinearContextTransform(ChannelGate):
    """Linear context transform.

    Args:
        channels: C.
        groups: of channels, >= 1, reduced to a divisor of C. 16, where the paper has 64: with two
            channels to a group n is 1 and -1, whatever the image.

    Traps:
        - With two channels to a group, as with the paper's 64 groups at C = 128, n is 1 and -1,
          whatever the image.
        - The paper's start is not known; other copies start at w = 1, b = 0.
    """

    def __init__(self, channels: int, *, groups: PositiveInt = 16) -> None:
        super().__init__()
        groups = fit_groups(groups, channels)
        self.norm = GroupNorm(groups, channels)
        nn.init.zeros_(self.norm.weight)
        nn.init.ones_(self.norm.bias)
        if groups == channels:  # a channel is its group's mean: n = 0
            self.zero_gradient = ("norm.weight",)

    def gate(self, x: Tensor) -> Tensor:
        means = upcast(x.mean((2, 3), keepdim=True))
        return self.norm(means.to(self.norm.weight.dtype)).sigmoid().to(x.dtype)
