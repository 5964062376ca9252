"""The bricks of CSPDarknet53-tiny."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Attend = Callable[[str, Tensor], Tensor]  # (site name, map) -> map: where attention may be placed
LEAKY_SLOPE = 0.1  # Darknet's `activation=leaky`


class ConvBNAct(nn.Sequential):
    """k x k convolution without bias, batch normalization, leaky ReLU. `(B, in, H, W)` -> `(B, out, H/s, W/s)`."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels)
        self.act = nn.LeakyReLU(LEAKY_SLOPE, inplace=True)


class CSPBlock(nn.Module):
    """Cross-stage partial block of YOLOv4-tiny (Wang et al., Scaled-YOLOv4, CVPR 2021, arXiv 2011.08036).

    ```
    x -conv1-+------------------------------- concat -> (B, 2C, H, W)
             +- 2nd half -conv2-+----- concat -conv4-+
                                +-conv3-+
    ```
    `site` names the residual path's end (conv4's output), where an attention block may sit inside the block.
    """

    def __init__(self, in_channels: int, channels: int, site: str) -> None:
        super().__init__()
        half = channels // 2
        self.site = site
        self.conv1 = ConvBNAct(in_channels, channels, 3)
        self.conv2 = ConvBNAct(half, half, 3)
        self.conv3 = ConvBNAct(half, half, 3)
        self.conv4 = ConvBNAct(channels, channels, 1)

    def forward(self, x: Tensor, attend: Attend) -> tuple[Tensor, Tensor]:
        """`(B, in, H, W)` -> (concatenated map `(B, 2C, H, W)`, conv4's map `(B, C, H, W)`)."""
        route = self.conv1(x)
        first = self.conv2(route[:, route.shape[1] // 2 :])
        feature = attend(self.site, self.conv4(torch.cat([self.conv3(first), first], 1)))
        return torch.cat([route, feature], 1), feature
