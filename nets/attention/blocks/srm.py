"""Style-based recalibration: a channel's weight follows from its own mean and deviation.

Lee, Kim, Nam: SRM: A Style-based Recalibration Module, ICCV 2019, arXiv 1903.10829

    m, s = mean and standard deviation over H, W of x    (B, C), s = sqrt(variance + 1e-5)
    z_c = u_c m_c + v_c s_c                              (B, C)
    g = sigmoid(BN(z))                                   (B, C), normalized over the images
    y = x * g                                            (B, C, H, W)

u and v start at 0, and every gate at 0.5. On a map of one position, the variance is 0.
"""

import torch
from torch import Tensor, nn

from nets.attention.base import ChannelGate
from nets.attention.layers import BatchNorm2d, spatial_variance, upcast
from nets.attention.registry import register


@register("srm", family="channel", paper="Lee, Kim, Nam: SRM, ICCV 2019, arXiv 1903.10829")
class StyleRecalibration(ChannelGate):
    """Style-based recalibration.

    Args:
        channels: C.

    Traps:
        - The normalization sees one value per image: use batches of at least 8.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        # two vectors, reshaped in use: the optimizer decays what has two axes
        self.mean_weight = nn.Parameter(torch.zeros(channels))
        self.deviation_weight = nn.Parameter(torch.zeros(channels))
        self.bn = BatchNorm2d(channels)

    def gate(self, x: Tensor) -> Tensor:
        wide = upcast(x)
        mean = wide.mean((2, 3), keepdim=True)
        deviation = (spatial_variance((wide - mean).square()) + 1e-5).sqrt()
        style = (
            self.mean_weight.view(-1, 1, 1) * mean
            + self.deviation_weight.view(-1, 1, 1) * deviation
        )
        return self.bn(style.to(self.bn.weight.dtype)).sigmoid().to(x.dtype)
