"""Effective squeeze and excitation: one full linear map instead of a bottleneck.

Lee, Park: CenterMask, CVPR 2020, arXiv 1911.06667

    z = mean over H, W of x      (B, C)
    g = h(W z + b)               (B, C), h(t) = min(max(t + 3, 0), 6) / 6
    y = x * g                    (B, C, H, W)

"""

from typing import Literal

from torch import Tensor, nn

from nets.attention.base import ChannelGate
from nets.attention.registry import register


@register("ese", family="channel", paper="Lee, Park: CenterMask, CVPR 2020, arXiv 1911.06667")
class EffectiveSE(ChannelGate):
    """Effective squeeze and excitation.

    Args:
        channels: C.
        gate: hardsigmoid (paper) or sigmoid.

    Traps:
        - The hard sigmoid is flat beyond -3 and 3: a channel driven there stops learning; the
          sigmoid does not.
    """

    def __init__(
        self, channels: int, *, gate: Literal["hardsigmoid", "sigmoid"] = "hardsigmoid"
    ) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)
        self.squash = nn.Sigmoid() if gate == "sigmoid" else nn.Hardsigmoid()

    def gate(self, x: Tensor) -> Tensor:
        return self.squash(self.fc(x.mean((2, 3), keepdim=True)))
