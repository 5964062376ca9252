"""CSPDarknet53-tiny."""

from torch import Tensor, nn

from nets.yolo.blocks import ApplyAttention, ConvBNAct, CSPBlock


class CSPDarknet53Tiny(nn.Module):
    """Layers 0 to 26 of Darknet's `yolov4-tiny.cfg`.

    feat0 and feat1 are the outputs of the second and third CSP block's residual path, before the
    concatenation (layers 15 and 23). Attention at site feat1 affects only the neck; attention at
    csp3 also affects the rest of the backbone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem1 = ConvBNAct(3, 32, 3, 2)
        self.stem2 = ConvBNAct(32, 64, 3, 2)
        self.csp1 = CSPBlock(64, 64, "csp1")
        self.csp2 = CSPBlock(128, 128, "csp2")
        self.csp3 = CSPBlock(256, 256, "csp3")
        self.last = ConvBNAct(512, 512, 3)
        self.pool = nn.MaxPool2d(2, 2)

    def forward(self, images: Tensor, apply_attention: ApplyAttention) -> list[Tensor]:
        """Extract the feature maps that the heads use.

        Args:
            images: `(B, 3, H, W)`, RGB, 0..1.
            apply_attention: called at every site of the backbone; not at feat0, which a network
                with two heads does not use.

        Returns:
            feat0 `(B, 128, H/8, W/8)`, feat1 `(B, 256, H/16, W/16)`, feat2 `(B, 512, H/32, W/32)`.
        """
        x = apply_attention("stem", self.stem2(self.stem1(images)))  # (B, 64, H/4, W/4)
        x, _ = self.csp1(x, apply_attention)
        x = self.pool(apply_attention("stage1", x))  # (B, 128, H/8, W/8)
        x, feat0 = self.csp2(x, apply_attention)  # feat0: (B, 128, H/8, W/8)
        x = self.pool(apply_attention("stage2", x))  # (B, 256, H/16, W/16)
        x, feat1 = self.csp3(x, apply_attention)  # feat1: (B, 256, H/16, W/16)
        x = self.pool(apply_attention("stage3", x))  # (B, 512, H/32, W/32)
        return [feat0, apply_attention("feat1", feat1), apply_attention("feat2", self.last(x))]
