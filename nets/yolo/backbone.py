"""CSPDarknet53-tiny."""

from torch import Tensor, nn

from nets.yolo.blocks import Attend, ConvBNAct, CSPBlock


class CSPDarknet53Tiny(nn.Module):
    """`(B, 3, H, W)`, 0..1 -> feat1 `(B, 256, H/16, W/16)` and feat2 `(B, 512, H/32, W/32)`.

    Layers 0 to 26 of Darknet's `yolov4-tiny.cfg`. feat1 is the residual path of the third CSP block, before the
    concatenation (layer 23); attention placed on feat1 acts on the neck only, attention on csp3 also on what follows.
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

    def forward(self, images: Tensor, attend: Attend) -> tuple[Tensor, Tensor]:
        x = attend("stem", self.stem2(self.stem1(images)))
        feature = x
        for stage, block in (("stage1", self.csp1), ("stage2", self.csp2), ("stage3", self.csp3)):
            x, feature = block(x, attend)
            x = self.pool(attend(stage, x))
        return attend("feat1", feature), attend("feat2", self.last(x))
