"""The feature pyramid of YOLOv4-tiny."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.yolo.blocks import ApplyAttention, ConvBNAct


def upsample_and_join(
    coarse: Tensor, fine: Tensor, site: str, apply_attention: ApplyAttention
) -> Tensor:
    """Upsample a map (nearest neighbor) and concatenate it with one of twice its size.

    Args:
        coarse: `(B, C, h, w)`.
        fine: `(B, D, 2h, 2w)`.
        site: the attention site between the two steps.
        apply_attention: called at this site.

    Returns:
        `(B, C + D, 2h, 2w)`.
    """
    upsampled = F.interpolate(coarse, scale_factor=2.0, mode="nearest")
    return torch.cat([apply_attention(site, upsampled), fine], 1)


class FPN(nn.Module):
    """Reduce feat2, upsample it (nearest neighbor) and concatenate it with feat1."""

    def __init__(self) -> None:
        super().__init__()
        self.lateral = ConvBNAct(512, 256, 1)
        self.reduce = ConvBNAct(256, 128, 1)

    def forward(
        self, feat1: Tensor, feat2: Tensor, apply_attention: ApplyAttention
    ) -> tuple[Tensor, Tensor]:
        """Combine the backbone's feature maps.

        Args:
            feat1: `(B, 256, 2h, 2w)`.
            feat2: `(B, 512, h, w)`.
            apply_attention: called at the sites lateral and upsample.

        Returns:
            p5 `(B, 256, h, w)` and p4 `(B, 384, 2h, 2w)`.
        """
        p5 = apply_attention("lateral", self.lateral(feat2))
        return p5, upsample_and_join(self.reduce(p5), feat1, "upsample", apply_attention)
