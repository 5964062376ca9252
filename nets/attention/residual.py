"""The basic block of ResNet with CBAM on its residual path.

basic_block  He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016, arXiv 1512.03385, with
             CBAM where Woo et al. (ECCV 2018, arXiv 1807.06521) place it: before the addition
y = relu(x + CBAM(BN(conv3x3(relu(BN(conv3x3 x)))))), C -> C, stride 1, (B, C, H, W) -> (B, C, H, W)
"""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from nets.attention.layers import AttentionBlock, BatchNorm2d, Maps
from nets.attention.mixed import CBAM
from nets.attention.options import Count
from nets.attention.registry import register

PAPER = "He et al.: Deep Residual Learning, CVPR 2016, arXiv 1512.03385; Woo et al.: CBAM, ECCV 2018, arXiv 1807.06521"


@register("basic_block", family="multi_branch", paper=PAPER)
class BasicBlock(AttentionBlock):
    """Two 3x3 convolutions, CBAM, addition, ReLU. `reduction` and `kernel_size` are CBAM's."""

    def __init__(
        self, channels: int, *, reduction: Count = 16, kernel_size: Literal[3, 7] = 7
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

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> Maps:
        return self.cbam.attention(self._residual(x), point)
