"""Normalization-based attention: channels count by the scale of their batch normalization.

Liu, Shao, Teng, Hoffmann: NAM, NeurIPS Workshops 2021, arXiv 2111.12419

    w_c = |gamma_c| / sum over c of |gamma_c|    (C,), gamma the scale of BN
    g = sigmoid(w_c BN(x)_c)                     (B, C, H, W)
    y = x * g                                    (B, C, H, W)

The w add up to 1: with hundreds of channels they are small, and a fresh gate hardly leaves 0.5.
"""

from torch import Tensor

from nets.attention.base import FeatureGate
from nets.attention.layers import BatchNorm2d
from nets.attention.registry import register


@register(
    "nam",
    family="channel",
    paper="Liu, Shao, Teng, Hoffmann: NAM, NeurIPS Workshops 2021, arXiv 2111.12419",
)
class NormalizationAttention(FeatureGate):
    """Normalization-based attention.

    The gradient also flows through w; the authors' code cuts it there.

    Args:
        channels: C.

    Traps:
        - The factors |gamma| / sum sum to 1: at C = 256 each is 0.004, and a fresh gate lies
          between 0.49 and 0.51.
        - The authors cut the gradient through the factors; here it flows.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = BatchNorm2d(channels)

    def gate(self, x: Tensor) -> Tensor:
        scale = self.bn.weight.abs()
        return (self.bn(x) * (scale / scale.sum()).view(-1, 1, 1)).sigmoid()
