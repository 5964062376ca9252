"""Channel prior convolutional attention: a channel gate, then a factor from strips of many lengths.

Huang, Chen, Zou, Lu, Chen: Channel Prior Convolutional Attention for Medical Image Segmentation,
Computers in Biology and Medicine 2024, arXiv 2306.05196

    u = gelu(P x)                                                  (B, C, H, W)
    F(z) = W2 relu(W1 z + b1) + b2                                 W1 (m, C), W2 (C, m)
    v = u * (sigmoid(F(mean over H, W of u)) + sigmoid(F(max over H, W of u)))    (B, C, H, W)
    z = dw_5x5(v)                                                  depthwise, with biases
    t = W(z + sum over k = 7, 11, 21 of dw_kx1(dw_1xk(z)))         (B, C, H, W), no sigmoid
    y = P'(v * t)                                                  (B, C, H, W)

P, W and P' are 1x1 convolutions with biases, by default one and the same, as in the authors' code;
the paper has no P and P'.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from nets.attention.base import AttentionBlock, AttentionMaps
from nets.attention.layers import channel_mlp, depthwise
from nets.attention.options import PositiveInt
from nets.attention.registry import register

STRIPS = (7, 11, 21)


@register(
    "cpca",
    family="mixed",
    paper="Huang et al.: CPCA, Computers in Biology and Medicine 2024, arXiv 2306.05196",
)
class ChannelPriorAttention(AttentionBlock):
    """Channel prior convolutional attention.

    Args:
        channels: C.
        reduction: C over the hidden width m, >= 1; 4 as in the authors' code.
        projections: with P and P'.
        shared: P, W and P' are one layer.

    Traps:
        - No sigmoid on t: a fresh block leaves 6 % of its input's size, and nothing of its content.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: PositiveInt = 4,
        projections: bool = True,
        shared: bool = True,
    ) -> None:
        super().__init__()
        self.channel = channel_mlp(channels, reduction)
        self.local = depthwise(channels, 5, 5)
        self.strips = nn.ModuleList(
            nn.Sequential(depthwise(channels, 1, length), depthwise(channels, length, 1))
            for length in STRIPS
        )
        self.mix = nn.Conv2d(channels, channels, 1)
        self.before = self.after = None
        if projections:
            self.before = self.mix if shared else nn.Conv2d(channels, channels, 1)
            self.after = self.mix if shared else nn.Conv2d(channels, channels, 1)

    def _gated(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The channel gate (B, C, 1, 1) and the gated features v."""
        inside = x if self.before is None else F.gelu(self.before(x))
        mean = self.channel(inside.mean((2, 3), keepdim=True)).sigmoid()
        maximum = self.channel(inside.amax((2, 3), keepdim=True)).sigmoid()
        gate = mean + maximum
        return gate, inside * gate

    def _factor(self, gated: Tensor) -> Tensor:
        """The factor t."""
        local = self.local(gated)
        return self.mix(sum((strip(local) for strip in self.strips), local))

    def forward(self, x: Tensor) -> Tensor:
        gated = self._gated(x)[1]
        weighted = gated * self._factor(gated)
        return weighted if self.after is None else self.after(weighted)

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        """Return the channel gate, and the mean of |t|: a factor may be negative."""
        gate, gated = self._gated(x)
        return {"channel": gate.flatten(1), "spatial": self._factor(gated).abs().mean(1)}
