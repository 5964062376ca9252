"""Separable self-attention: one context vector for all positions, in linear time.

Mehta, Rastegari: Separable Self-attention for Mobile Vision Transformers, TMLR 2023,
arXiv 2206.02680

    a = softmax over N of W_i x              (B, 1, N), one latent query
    c = sum over N of a (W_k x)              (B, C, 1), the context
    y = x + W_o(relu(W_v x) c)               (B, C, H, W)

All maps are 1x1 convolutions with bias. The paper runs this in each part of a map cut into patches;
here the map is one.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from nets.attention.base import AttentionMaps, ResidualAttention
from nets.attention.layers import upcast
from nets.attention.registry import register


@register(
    "mobilevit_v2",
    family="self_attention",
    paper="Mehta, Rastegari: Separable Self-attention, TMLR 2023, arXiv 2206.02680",
)
class SeparableAttention(ResidualAttention):
    """Separable self-attention; its map is a.

    Args:
        channels: C.
        residual: add x.

    Traps:
        - All positions get one context vector, as in gc.
        - Common copies leave out the ReLU on the values.
    """

    zero_gradient = ("query.bias",)  # the same for all positions: the softmax cancels it

    def __init__(self, channels: int, *, residual: bool = True) -> None:
        super().__init__(residual)
        self.query = nn.Conv2d(channels, 1, 1)
        self.key = nn.Conv2d(channels, channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def _weights(self, x: Tensor) -> Tensor:
        """The map a, (B, N, 1), float32."""
        return upcast(self.query(x)).flatten(2).transpose(1, 2).softmax(1)

    def attended(self, x: Tensor) -> Tensor:
        key = self.key(x)
        context = key.flatten(2) @ self._weights(x).to(key.dtype)
        return self.out(F.relu(self.value(x)) * context.unsqueeze(3))

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        return {"spatial": self._weights(x).squeeze(2).unflatten(1, x.shape[2:])}
