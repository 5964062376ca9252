"""Strip pooling: a gate from the means of whole rows and of whole columns.

Hou, Zhang, Cheng, Feng: Strip Pooling, CVPR 2020, arXiv 2003.13328

    h = BN(conv3x1(mean over W of x))        (B, C, H, 1)
    w = BN(conv1x3(mean over H of x))        (B, C, 1, W)
    y = x * sigmoid(W relu(h + w) + b)       (B, C, H, W)

The convolutions mix all channels and have no bias.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from nets.attention.base import FeatureGate
from nets.attention.layers import BatchNorm2d
from nets.attention.registry import register


@register(
    "strip", family="spatial", paper="Hou, Zhang, Cheng, Feng: SPNet, CVPR 2020, arXiv 2003.13328"
)
class StripPooling(FeatureGate):
    """Strip pooling.

    Args:
        channels: C.

    Traps:
        - The class StripPooling of the authors' code is a pooling head; this is their SPBlock,
          times x.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.rows = nn.Sequential(
            nn.Conv2d(channels, channels, (3, 1), padding=(1, 0), bias=False), BatchNorm2d(channels)
        )
        self.columns = nn.Sequential(
            nn.Conv2d(channels, channels, (1, 3), padding=(0, 1), bias=False), BatchNorm2d(channels)
        )
        self.out = nn.Conv2d(channels, channels, 1)

    def gate(self, x: Tensor) -> Tensor:
        rows = self.rows(x.mean(3, keepdim=True))
        columns = self.columns(x.mean(2, keepdim=True))
        return self.out(F.relu(rows + columns)).sigmoid()
