"""The feature pyramid of YOLOv4-tiny."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.yolo.blocks import Attend, ConvBNAct


class FPN(nn.Module):
    """feat1 `(B, 256, 2h, 2w)`, feat2 `(B, 512, h, w)` -> inputs of the two heads.

    Returns p5 `(B, 256, h, w)` and p4 `(B, 384, 2h, 2w)`: p5 reduced, upsampled (nearest) and joined with feat1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lateral = ConvBNAct(512, 256, 1)
        self.reduce = ConvBNAct(256, 128, 1)

    def forward(self, feat1: Tensor, feat2: Tensor, attend: Attend) -> tuple[Tensor, Tensor]:
        p5 = attend("lateral", self.lateral(feat2))
        upsampled = attend(
            "upsample", F.interpolate(self.reduce(p5), scale_factor=2.0, mode="nearest")
        )
        return p5, torch.cat([upsampled, feat1], 1)
