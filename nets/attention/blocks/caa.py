"""Context anchor attention: a gate from local means, spread along rows and columns.

Cai, Lai, Wang, Wang, Sun, Yao: Poly Kernel Inception Network, CVPR 2024, arXiv 2403.06258

    c(u) = silu(BN(conv1x1 u))                           no bias; BN with eps 1e-3
    p = c1(average over a 7 x 7 window of x)             (B, C, H, W), zeros outside are counted
    g = sigmoid(c2(dw_kx1(dw_1xk p)))                    (B, C, H, W), depthwise with biases
    y = x * g                                            (B, C, H, W)

Without `norm`, c1 and c2 are plain 1x1
convolutions with biases, as in the paper's network; detectors carry the version above.
"""

from torch import Tensor, nn

from nets.attention.base import FeatureGate
from nets.attention.layers import BatchNorm2d, depthwise
from nets.attention.options import OddInt
from nets.attention.registry import register


@register("caa", family="spatial", paper="Cai et al.: PKINet, CVPR 2024, arXiv 2403.06258")
class ContextAnchorAttention(FeatureGate):
    """Context anchor attention.

    Args:
        channels: C.
        kernel_size: k, odd; 11 as in the paper's first block.
        pool: side of the window, odd; 7 as in the paper.
        norm: batch normalization and SiLU after both 1x1 convolutions, which then have no bias.

    Traps:
        - With `norm`, the SiLU before the sigmoid keeps the gate above 0.43: it cannot switch
          anything off.
        - The kernel grows with the depth in the paper's network, 11 + 2 i.
    """

    def __init__(
        self, channels: int, *, kernel_size: OddInt = 11, pool: OddInt = 7, norm: bool = True
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.AvgPool2d(pool, 1, pool // 2),
            *_pointwise(channels, norm),
            depthwise(channels, 1, kernel_size),
            depthwise(channels, kernel_size, 1),
            *_pointwise(channels, norm),
            nn.Sigmoid(),
        )
        if norm:  # the second batch normalization cancels it
            self.zero_gradient = ("layers.5.bias",)

    def gate(self, x: Tensor) -> Tensor:
        return self.layers(x)


def _pointwise(channels: int, norm: bool) -> list[nn.Module]:
    conv = nn.Conv2d(channels, channels, 1, bias=not norm)
    return [conv, BatchNorm2d(channels, eps=1e-3, momentum=0.03), nn.SiLU()] if norm else [conv]
