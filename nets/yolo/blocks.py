"""Building blocks of CSPDarknet53-tiny."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

ApplyAttention = Callable[[str, Tensor], Tensor]
"""Takes a site's name and feature map; returns the map after the site's attention, if any."""

LEAKY_SLOPE = 0.1  # Darknet's `activation=leaky`


class ConvBNAct(nn.Sequential):
    """k x k convolution without bias, batch normalization, leaky ReLU.

    `(B, in_channels, H, W)` -> `(B, out_channels, H / stride, W / stride)`.
    """

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
    """Cross-stage partial block of YOLOv4-tiny.

    Wang et al., Scaled-YOLOv4, CVPR 2021, arXiv 2011.08036.

    ```
    x -conv1-+------------------------------- concat -> (B, 2C, H, W)
             +- 2nd half -conv2-+----- concat -conv4-+
                                +-conv3-+
    ```

    Args:
        in_channels: channels of the input.
        channels: C, channels of `conv1` and `conv4`.
        site: name of the attention site at the end of the residual path, the output of `conv4`.
    """

    def __init__(self, in_channels: int, channels: int, site: str) -> None:
        super().__init__()
        half = channels // 2
        self.site = site
        self.conv1 = ConvBNAct(in_channels, channels, 3)
        self.conv2 = ConvBNAct(half, half, 3)
        self.conv3 = ConvBNAct(half, half, 3)
        self.conv4 = ConvBNAct(channels, channels, 1)

    def forward(self, x: Tensor, apply_attention: ApplyAttention) -> tuple[Tensor, Tensor]:
        """`(B, in, H, W)` -> concatenation `(B, 2C, H, W)`, output of `conv4` `(B, C, H, W)`."""
        route = self.conv1(x)  # (B, C, H, W)
        half = self.conv2(route[:, route.shape[1] // 2 :])  # (B, C/2, H, W)
        feature = self.conv4(torch.cat([self.conv3(half), half], 1))  # (B, C, H, W)
        feature = apply_attention(self.site, feature)
        return torch.cat([route, feature], 1), feature
