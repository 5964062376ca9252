"""YOLOv4-tiny with attention at named sites."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nets import attention
from nets.yolo.backbone import CSPDarknet53Tiny
from nets.yolo.blocks import ConvBNAct
from nets.yolo.box_coder import BoxCoder
from nets.yolo.neck import FPN
from utils.core.errors import UserError, nearest
from utils.core.schema import Config

# Anchors of Darknet's yolov4-tiny.cfg, pixels at 416x416, and which of them its two heads use
DARKNET_ANCHORS = (
    (10.0, 14.0),
    (23.0, 27.0),
    (37.0, 58.0),
    (81.0, 82.0),
    (135.0, 169.0),
    (344.0, 319.0),
)
DARKNET_MASKS = ((3, 4, 5), (1, 2, 3))

Init = Literal["paper", "identity"]
SITES: dict[str, int] = {  # name: channels, in the order of the forward pass
    "stem": 64,
    "csp1": 64,
    "stage1": 128,
    "csp2": 128,
    "stage2": 256,
    "csp3": 256,
    "stage3": 512,
    "feat1": 256,
    "feat2": 512,
    "lateral": 256,
    "upsample": 128,
    "head32": 512,
    "head16": 256,
}


class YOLOv4Tiny(nn.Module):
    """Images `(B, 3, H, W)`, RGB, 0..1 -> raw maps `(B, 3*(5+C), H/32, W/32)` and `(B, 3*(5+C), H/16, W/16)`.

    A map's channels are, anchor by anchor, x, y, w, h, objectness and C class logits: Darknet's order. `coder`
    turns raw maps into boxes. Attention blocks live in `attention`, a dictionary from site (see `SITES`) to block.

    Args:
        num_classes: C >= 1.
        coder: anchors, masks and the box parametrization.
        sites: site -> specification of a block (see `nets.attention.build`); empty: plain YOLOv4-tiny.
        init: "paper" or "identity", see `nets.attention.build`.

    Raises:
        UserError: a site that does not exist, or a block's specification that is wrong.
    """

    def __init__(
        self,
        num_classes: int,
        coder: BoxCoder | None = None,
        sites: Mapping[str, Any] | None = None,
        init: Init = "paper",
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.coder = coder or BoxCoder(DARKNET_ANCHORS, DARKNET_MASKS, new_coords=False)
        outputs = 3 * (5 + num_classes)
        self.backbone = CSPDarknet53Tiny()
        self.neck = FPN()
        self.head32 = ConvBNAct(256, 512, 3)
        self.head16 = ConvBNAct(384, 256, 3)
        self.predict32 = nn.Conv2d(512, outputs, 1)
        self.predict16 = nn.Conv2d(256, outputs, 1)
        self._initialize()
        self.attention = _build_attention(
            sites or {}, init
        )  # last: a re-initialization would undo zero starts

    def _initialize(self) -> None:
        """Small heads; convolutions keep PyTorch's start, U(-1, 1)/sqrt(fan in).

        Before a batch norm only the ratio of step to weight norm counts: He's larger start learns the steel data
        half as fast at the same rate (docs/training.md).
        """
        for predict in (self.predict32, self.predict16):
            nn.init.normal_(predict.weight, std=0.01)
            nn.init.constant_(predict.get_parameter("bias"), 0.0)

    def _attend(self, site: str, x: Tensor) -> Tensor:
        return self.attention[site](x) if site in self.attention else x

    def forward(self, images: Tensor) -> list[Tensor]:
        feat1, feat2 = self.backbone(images, self._attend)
        p5, p4 = self.neck(feat1, feat2, self._attend)
        return [
            self.predict32(self._attend("head32", self.head32(p5))),
            self.predict16(self._attend("head16", self.head16(p4))),
        ]

    @torch.no_grad()
    def set_prior(
        self, objects_per_image: float, class_rates: Sequence[float], size: tuple[int, int]
    ) -> None:
        """Start the heads at the data's rates (Lin et al., Focal Loss, ICCV 2017, section 4.1).

        Without it the first steps only teach that most cells are empty. Args: mean number of objects in an image,
        the share of each class (sums to 1, length C), and the input's (height, width).
        """
        rates = torch.tensor(class_rates, dtype=torch.float32).clamp(1e-3, 1 - 1e-3)
        for predict, stride in ((self.predict32, 32), (self.predict16, 16)):
            cells = 3 * (size[0] // stride) * (size[1] // stride)
            share = min(0.5, max(1e-4, objects_per_image / cells))
            bias = predict.get_parameter("bias").view(3, -1)
            bias[:, 4] = math.log(share / (1 - share))
            bias[:, 5:] = torch.logit(rates)


def build_model(
    config: Config, num_classes: int, anchors: Sequence[Sequence[float]] | None = None
) -> YOLOv4Tiny:
    """The network of a configuration.

    Args:
        config: `phi`, `attention` and `model` are read.
        num_classes: length of the class list.
        anchors: six (width, height) in input pixels, used where `model.anchors` is `auto`; none: Darknet's.
    """
    given = config.model.anchors if config.model.anchors != "auto" else anchors or DARKNET_ANCHORS
    coder = BoxCoder(
        given, config.model.anchor_masks, config.model.new_coords, config.model.scale_x_y
    )
    sites = attention.parse_phi(config.phi, config.attention.at)
    return YOLOv4Tiny(num_classes, coder, sites, config.attention.init)


def _build_attention(sites: Mapping[str, Any], init: Init) -> nn.ModuleDict:
    for site in sites:
        if site not in SITES:
            raise UserError(f"attention site '{site}' does not exist{nearest(site, SITES)}")
    return nn.ModuleDict(
        {
            site: attention.build(sites[site], channels, init)
            for site, channels in SITES.items()
            if site in sites
        }
    )
