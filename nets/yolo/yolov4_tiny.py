"""The YOLOv4-tiny network."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nets import attention
from nets.yolo.backbone import CSPDarknet53Tiny
from nets.yolo.blocks import ConvBNAct
from nets.yolo.box_coder import DARKNET, BoxCoder, map_sizes
from nets.yolo.neck import FPN, upsample_and_join
from utils.core.errors import UserError, nearest, shorten
from utils.core.schema import Config, ModelConfig

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
SITES_BY_HEADS = {2: SITES, 3: {**SITES, "feat0": 128, "upsample8": 64, "head8": 128}}


class YOLOv4Tiny(nn.Module):
    """YOLOv4-tiny with attention blocks at named sites.

    With three heads, the layers of Darknet's `yolov4-tiny-3l.cfg`: the map of the stride 16 head,
    before its prediction layer, is upsampled and joined with feat0.

    Args:
        num_classes: C, number of classes, >= 1.
        coder: anchors, masks and the box parametrization; it has as many masks as the network has
            heads, two or three. None: those of Darknet's `yolov4-tiny.cfg`.
        sites: site (see `SITES_BY_HEADS`) -> specification of a block (see
            `nets.attention.build`); None: no attention.
        init: "paper" or "identity", see `nets.attention.build`.

    Attributes:
        attention: the attention blocks by site.
        coder: turns the raw maps into boxes and scores.
        sites: name -> channels of all sites, with and without a block, in the order of the forward
            pass.

    Raises:
        UserError: a site does not exist, or the specification of a block is wrong.
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
        self.coder = coder or BoxCoder(DARKNET[2].anchors, DARKNET[2].masks, new_coords=False)
        outputs = 3 * (5 + num_classes)
        self.backbone = CSPDarknet53Tiny()
        self.neck = FPN()
        self.head32 = ConvBNAct(256, 512, 3)
        self.head16 = ConvBNAct(384, 256, 3)
        self.predict32 = nn.Conv2d(512, outputs, 1)
        self.predict16 = nn.Conv2d(256, outputs, 1)
        self._initialize(32, 16)
        if 8 in self.coder.strides:  # last, so that the other layers start as without it
            self.reduce8 = ConvBNAct(256, 64, 1)
            self.head8 = ConvBNAct(192, 128, 3)
            self.predict8 = nn.Conv2d(128, outputs, 1)
            self._initialize(8)
        self.sites = SITES_BY_HEADS[len(self.coder.strides)]
        # Last, since the initialization above would undo the zeros of an identity start
        self.attention = _build_attention(sites or {}, init, len(self.coder.strides))

    def _prediction_layer(self, stride: int) -> nn.Conv2d:
        layer = self.get_submodule(f"predict{stride}")
        assert isinstance(layer, nn.Conv2d)
        return layer

    def _initialize(self, *strides: int) -> None:
        """Initialize the prediction layers of some heads to small values.

        The other layers keep PyTorch's U(-1, 1) / sqrt(fan_in). Before a batch norm, only the size
        of a step relative to the norm of the weights matters. With the larger weights of He's
        initialization, training on the steel data is half as fast at the same learning rate
        (docs/training.md).
        """
        for predict in map(self._prediction_layer, strides):
            nn.init.normal_(predict.weight, std=0.01)
            nn.init.constant_(predict.get_parameter("bias"), 0.0)

    def apply_attention(self, site: str, x: Tensor) -> Tensor:
        """Apply the attention block of a site, if it has one, to its feature map."""
        return self.attention[site](x) if site in self.attention else x

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the raw maps of the heads.

        Args:
            images: `(B, 3, H, W)`, RGB, 0..1; H and W are multiples of 32.

        Returns:
            Maps `(B, 3*(5+C), H/32, W/32)`, `(B, 3*(5+C), H/16, W/16)` and, with three heads,
            `(B, 3*(5+C), H/8, W/8)`. The channels hold, for each of the three anchors, the logits
            of x, y, w, h, objectness and the C classes, as in Darknet.
        """
        feat0, feat1, feat2 = self.backbone(images, self.apply_attention)
        # feat1: (B, 256, H/16, W/16), feat2: (B, 512, H/32, W/32)
        p5, p4 = self.neck(feat1, feat2, self.apply_attention)
        # p5: (B, 256, H/32, W/32), p4: (B, 384, H/16, W/16)
        p5 = self.apply_attention("head32", self.head32(p5))  # (B, 512, H/32, W/32)
        map32 = self.predict32(p5)
        p4 = self.apply_attention("head16", self.head16(p4))  # (B, 256, H/16, W/16)
        map16 = self.predict16(p4)
        if 8 not in self.coder.strides:
            return [map32, map16]
        feat0 = self.apply_attention("feat0", feat0)  # (B, 128, H/8, W/8)
        p3 = upsample_and_join(self.reduce8(p4), feat0, "upsample8", self.apply_attention)
        p3 = self.apply_attention("head8", self.head8(p3))  # (B, 192, H/8, W/8) -> (B, 128, ...)
        return [map32, map16, self.predict8(p3)]

    @torch.no_grad()
    def set_prior(
        self, objects_per_image: float, class_rates: Sequence[float], size: tuple[int, int]
    ) -> None:
        """Initialize the biases of the prediction layers from the frequencies in the data.

        Lin et al., Focal Loss, ICCV 2017, section 4.1. Without it, the network spends its first
        steps learning that most grid cells are empty.

        Args:
            objects_per_image: mean number of objects per image.
            class_rates: fraction of objects that belong to each class, length C, sums to 1.
            size: (height, width) of the input, pixels.
        """
        rates = torch.tensor(class_rates, dtype=torch.float32).clamp(1e-3, 1 - 1e-3)
        strides = self.coder.strides
        for stride, (height, width) in zip(strides, map_sizes(size, len(strides)), strict=True):
            objectness = min(0.5, max(1e-4, objects_per_image / (3 * height * width)))
            bias = self._prediction_layer(stride).get_parameter("bias").view(3, -1)
            bias[:, 4] = math.log(objectness / (1 - objectness))
            bias[:, 5:] = torch.logit(rates)


def build_model(
    config: Config, num_classes: int, anchors: Sequence[Sequence[float]] | None = None
) -> YOLOv4Tiny:
    """Build the network that a configuration describes.

    Args:
        config: `phi`, `attention` and `model` are read.
        num_classes: number of classes.
        anchors: (width, height) in input pixels, three per head, for `model.anchors: auto`; None:
            Darknet's.

    Raises:
        UserError: a site or block does not exist, or there are too few or too many anchors.
    """
    model = config.model
    if model.anchors != "auto":
        anchors = model.anchors
    anchors = anchors or DARKNET[model.heads].anchors
    check_anchor_count(anchors, model, "anchors")
    coder = BoxCoder(anchors, model.masks, model.new_coords, model.scale_x_y)
    check_sites(config.attention.at, model.heads)
    sites = attention.parse_phi(config.phi, config.attention.at)
    return YOLOv4Tiny(num_classes, coder, sites, config.attention.init or "paper")


def check_anchor_count(anchors: Sequence[Sequence[float]], model: ModelConfig, origin: str) -> None:
    """Raise a `UserError` that names their origin if there are not three anchors per head."""
    if len(anchors) != model.num_anchors:
        raise UserError(
            f"{origin}: expected {model.num_anchors} for model.heads={model.heads}, "
            f"got {len(anchors)}"
        )


def check_sites(sites: Iterable[str], heads: int) -> None:
    """Raise a `UserError` that names the first site that a network with this many heads lacks."""
    for site in sites:
        if site not in SITES_BY_HEADS[heads]:
            hint = site_hint(site, heads)
            raise UserError(f"attention site '{shorten(site)}' does not exist{hint}")


def site_hint(site: str, heads: int) -> str:
    """A hint for an error message about a site that a network with this many heads lacks."""
    for other, sites in SITES_BY_HEADS.items():
        if site in sites:
            return f" with model.heads={heads}; it needs model.heads={other}"
    return nearest(site, SITES_BY_HEADS[heads])


def _build_attention(sites: Mapping[str, Any], init: Init, heads: int) -> nn.ModuleDict:
    check_sites(sites, heads)
    blocks = nn.ModuleDict()
    for site, channels in SITES_BY_HEADS[heads].items():
        if site in sites:
            blocks[site] = attention.build(sites[site], channels, init)
    return blocks
