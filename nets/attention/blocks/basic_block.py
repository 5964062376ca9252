"""The basic block of ResNet, with CBAM on its residual path.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016, arXiv 1512.03385
Woo, Park, Lee, Kweon: CBAM, ECCV 2018, arXiv 1807.06521, which places CBAM before the addition

    y = relu(x + CBAM(BN(conv3x3(relu(BN(conv3x3 x))))))     (B, C, H, W), stride 1
"""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from nets.attention.base import AttentionBlock, AttentionMaps
from nets.attention.blocks.cbam import CBAM
from nets.attention.layers import BatchNorm2d
from nets.attention.options import PositiveInt
from nets.attention.registry import register

PAPER = (
    "He et al.: Deep Residual Learning, CVPR 2016, arXiv 1512.03385; "
    "Woo et al.: CBAM, ECCV 2018, arXiv 1807.06521"
)


@register("basic_block", family="multi_branch", paper=PAPER)
class BasicBlock(AttentionBlock):
    """Two 3x3 convolutions, CBAM, addition, ReLU.

    Args:
        channels: C.
        reduction: of CBAM, >= 1; 16 as in its paper.
        kernel_size: of CBAM's spatial gate, 7 (paper) or 3.

    Traps:
        - The ReLU after the addition cuts negative features.
        - Doubles the network: 6.2 million parameters at three sites.
    """

    def __init__(
        self, channels: int, *, reduction: PositiveInt = 16, kernel_size: Literal[3, 7] = 7
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = BatchNorm2d(channels)
        self.cbam = CBAM(channels, reduction=reduction, kernel_size=kernel_size)

    def _residual(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.cbam(self._residual(x)))

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        return self.cbam.attention(self._residual(x), point)
