"""ParNet: a 1x1 and a 3x3 convolution beside squeeze and excitation.

Goyal, Bochkovskiy, Deng, Koltun: Non-deep Networks, NeurIPS 2022, arXiv 2110.07641

    g = sigmoid(W z + b)                                    (B, C, 1, 1), z = mean over H, W of x
    y = silu(BN(conv1x1 x) + BN(conv3x3 x) + x * g)         (B, C, H, W), replaces x

Mostly a convolution: compare it at equal parameters.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from nets.attention.base import AttentionBlock, AttentionMaps
from nets.attention.layers import conv_norm_act
from nets.attention.registry import register


@register(
    "parnet",
    family="multi_branch",
    paper="Goyal, Bochkovskiy, Deng, Koltun: Non-deep Networks, NeurIPS 2022, arXiv 2110.07641",
)
class ParNet(AttentionBlock):
    """The block of ParNet.

    Args:
        channels: C.
        bias: biases of the 1x1 and the 3x3 convolution, which the normalizations cancel.

    Traps:
        - A block of convolutions rather than attention: compare it at equal parameters. The SiLU
          changes pretrained features.
    """

    def __init__(self, channels: int, *, bias: bool = False) -> None:
        super().__init__()
        self.point, self.local = (
            nn.Sequential(*conv_norm_act(channels, channels, size, bias=bias)[:-1])
            for size in (1, 3)
        )
        self.excite = nn.Conv2d(channels, channels, 1)
        if bias:
            self.zero_gradient = ("point.0.bias", "local.0.bias")

    def _gate(self, x: Tensor) -> Tensor:
        return self.excite(x.mean((2, 3), keepdim=True)).sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.point(x) + self.local(x) + x * self._gate(x))

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        return {"channel": self._gate(x).flatten(1)}
