"""Gather-excite: a gate from the surroundings of a position, as far as the extent reaches.

Hu, Shen, Albanie, Sun, Vedaldi: Gather-Excite: Exploiting Feature Context in Convolutional Neural
Networks, NeurIPS 2018, arXiv 1810.12348

    G(x) = average over (2 e - 1) x (2 e - 1) with stride e, padding not counted    gather pool
         = log2(e) times [depthwise conv3x3 with stride 2, BN, ReLU but at the end] gather conv
    M(u) = u, or W2 relu(W1 u + b1) + b2                    with mlp; m = max(C // reduction, 1)
    y = x * sigmoid(M(G(x)))                                (B, C, H, W), gate upsampled to the
                                                            nearest cell

| variant of the paper | gather | mlp   |
| -------------------- | ------ | ----- |
| theta minus          | pool   | false |
| theta (default)      | conv   | false |
| theta plus           | conv   | true  |

Extent 0 is the mean over the whole map; with mlp, that is se with biases.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.attention.base import FeatureGate
from nets.attention.layers import channel_mlp, conv_norm_act
from nets.attention.options import PositiveInt
from nets.attention.registry import register
from utils.core.errors import UserError


class MeanPool(nn.Module):
    """The averages G(x), or the mean of the whole map at extent 0."""

    def __init__(self, extent: int) -> None:
        super().__init__()
        self.extent = extent

    def forward(self, x: Tensor) -> Tensor:
        if self.extent == 0:
            return x.mean((2, 3), keepdim=True)
        # not count_include_pad=False: OpenCV 4 counts the padding all the same
        inside = torch.ones_like(x[:1, :1])
        window = (2 * self.extent - 1, self.extent, self.extent - 1)
        return F.avg_pool2d(x, *window) / F.avg_pool2d(inside, *window)


@register("ge", family="channel", paper="Hu et al.: Gather-Excite, NeurIPS 2018, arXiv 1810.12348")
class GatherExcite(FeatureGate):
    """Gather-excite.

    Args:
        channels: C.
        extent: e, 2, 4, 8 or 16; 0 for the whole map, which needs gather pool.
        gather: conv or pool.
        mlp: two 1x1 convolutions before the sigmoid.
        reduction: C over their hidden width m, >= 1; 16 as in the paper.

    Traps:
        - Extent 0 with mlp is se with biases, not a block of its own.
        - Where the extent does not divide the sides, gates are not centered on what they saw.
    """

    def __init__(
        self,
        channels: int,
        *,
        extent: Literal[0, 2, 4, 8, 16] = 8,
        gather: Literal["conv", "pool"] = "conv",
        mlp: bool = False,
        reduction: PositiveInt = 16,
    ) -> None:
        super().__init__()
        if gather == "conv" and extent == 0:
            raise UserError("ge.extent: 0 needs ge.gather=pool; expected 2, 4, 8 or 16")
        self.gather: nn.Module = MeanPool(extent)
        if gather == "conv":
            self.gather = nn.Sequential(*_strided_convolutions(channels, extent))
        self.mlp = channel_mlp(channels, reduction) if mlp else nn.Identity()

    def gate(self, x: Tensor) -> Tensor:
        return F.interpolate(self.mlp(self.gather(x)).sigmoid(), x.shape[2:])


def _strided_convolutions(channels: int, extent: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    while extent > 1:
        layers += conv_norm_act(channels, channels, 3, stride=2, groups=channels)
        extent //= 2
    return layers[:-1]  # no ReLU at the end
