"""Efficient channel attention: a channel's weight depends on its neighbors only.

Wang, Wu, Zhu, Li, Zuo, Hu: ECA-Net, CVPR 2020, arXiv 1910.03151

    z = mean over H, W of x          (B, C), read as a sequence of length C
    g = sigmoid(conv1d_k(z))         (B, C), no bias
    y = x * g                        (B, C, H, W)

The kernel k grows with log C: t = int(|log2(C) + b| / gamma), k = t if t is odd, else t + 1.
"""

import math
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from nets.attention.base import ChannelGate
from nets.attention.options import OddInt
from nets.attention.registry import register

# of the rule for k above
KernelBase = Annotated[float, Field(ge=0.01, le=100)]
KernelShift = Annotated[float, Field(ge=-100, le=100)]


def kernel_width(channels: int, gamma: float, b: float) -> int:
    """Return the kernel k for C channels, by the rule above."""
    width = int(abs(math.log2(channels) + b) / gamma)
    return width if width % 2 else width + 1


@register(
    "eca",
    family="channel",
    paper="Wang, Wu, Zhu, Li, Zuo, Hu: ECA-Net, CVPR 2020, arXiv 1910.03151",
)
class ECA(ChannelGate):
    """Efficient channel attention.

    Args:
        channels: C.
        gamma: of the formula above, 0.01 to 100; 2 as in the paper.
        b: of the formula above, -100 to 100; 1 as in the paper.
        kernel_size: odd, replaces the formula.

    Traps:
        - timm has kernels of at least 3, which differs below 8 channels; some copies fix the kernel
          at 3 and add a bias.
    """

    def __init__(
        self,
        channels: int,
        *,
        gamma: KernelBase = 2,
        b: KernelShift = 1,
        kernel_size: OddInt | None = None,
    ) -> None:
        super().__init__()
        if kernel_size is None:
            kernel_size = kernel_width(channels, gamma, b)
        self.conv = nn.Conv1d(1, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def gate(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3))[:, None]  # (B, 1, C)
        return self.conv(pooled).sigmoid().transpose(1, 2)[..., None]
