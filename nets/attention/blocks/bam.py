"""Bottleneck attention module: a channel and a spatial branch, side by side.

Park, Woo, Lee, Kweon: BAM: Bottleneck Attention Module, BMVC 2018, arXiv 1807.06514

    c = W2 relu(BN(W1 mean over H, W of x))      (B, C, 1, 1)
    p = conv1x1(D_n(... D_1(relu(BN(conv1x1 x))))) (B, 1, H, W)
    D_i(u) = relu(BN(dilated conv3x3 u))         (B, m, H, W)
    y = x * (1 + sigmoid(c + p))                 (B, C, H, W)

Both branches are m = max(C // reduction, 1) channels wide; all convolutions have biases.
"""

from typing import Literal

from torch import Tensor, nn

from nets.attention.base import FeatureGate
from nets.attention.layers import conv_norm_act, reduced_channels
from nets.attention.options import PositiveInt, SmallInt
from nets.attention.registry import register


@register("bam", family="mixed", paper="Park, Woo, Lee, Kweon: BAM, BMVC 2018, arXiv 1807.06514")
class BAM(FeatureGate):
    """Bottleneck attention module.

    Args:
        channels: C.
        reduction: C over the hidden width m, >= 1; 16 as in the paper.
        dilation: of the 3x3 convolutions, >= 1; 4 as in the paper.
        num_layers: the number n of dilated convolutions, >= 1; 2 as in the paper.
        combine: sum of the branches (paper) or product (the authors' code).

    Traps:
        - The authors' code multiplies the branches, the paper adds them: see `combine`.
        - The spatial branch reaches 8 cells to each side, more than half of a 13 x 13 map.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: PositiveInt = 16,
        dilation: SmallInt = 4,
        num_layers: SmallInt = 2,
        combine: Literal["sum", "product"] = "sum",
    ) -> None:
        super().__init__()
        hidden = reduced_channels(channels, reduction)
        self.channel = nn.Sequential(
            *conv_norm_act(channels, hidden, bias=True), nn.Conv2d(hidden, channels, 1)
        )
        dilated = []
        for _ in range(num_layers):
            dilated += conv_norm_act(hidden, hidden, 3, dilation=dilation, bias=True)
        self.spatial = nn.Sequential(
            *conv_norm_act(channels, hidden, bias=True), *dilated, nn.Conv2d(hidden, 1, 1)
        )
        self.product = combine == "product"
        # the batch normalizations cancel the biases before them
        before_norms = [f"spatial.{3 * layer}.bias" for layer in range(num_layers + 1)]
        self.zero_gradient = ("channel.0.bias", *before_norms)

    def gate(self, x: Tensor) -> Tensor:
        channel = self.channel(x.mean((2, 3), keepdim=True))
        spatial = self.spatial(x)
        return 1 + (channel * spatial if self.product else channel + spatial).sigmoid()
