"""Global context: one summary of the whole map, added to or multiplied with every position.

Cao, Xu, Lin, Wei, Hu: GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond,
ICCV Workshops 2019, arXiv 1904.11492

    a = softmax over N of (w . x + b)        (B, N)   where to look, the same for every query
    c = x a^T                                (B, C)   what is there
    t = W2 relu(LN(W1 c + b1)) + b2          (B, C)   LN over the m = max(C // reduction, 1) values
    add:  y = x + t                          (B, C, H, W)
    mul:  y = x * sigmoid(t)
    both: mul, then add, each with its own W1, W2
"""

from typing import Literal

import torch
from torch import Tensor, nn

from nets.attention.base import AttentionBlock, AttentionMaps
from nets.attention.layers import reduced_channels, upcast
from nets.attention.options import PositiveInt
from nets.attention.registry import register


@register(
    "gc",
    family="channel",
    paper="Cao, Xu, Lin, Wei, Hu: GCNet, ICCV Workshops 2019, arXiv 1904.11492",
)
class GlobalContext(AttentionBlock):
    """Global context block; the last layer of the add branch starts at 0.

    Args:
        channels: C.
        reduction: C over the hidden width m, >= 1; 16 as in the paper.
        pool: the learned map a (paper), or an average over all positions.
        fusion: add (paper), mul or both.

    Traps:
        - The multiplied forms are not the identity at start; in them a block scales all features by
          about 0.5.
        - Weights of timm need the same eps of the LayerNorm: 1e-6 there, 1e-5 here and in the
          authors' code.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: PositiveInt = 16,
        pool: Literal["attention", "average"] = "attention",
        fusion: Literal["add", "mul", "both"] = "add",
    ) -> None:
        super().__init__()
        hidden = reduced_channels(channels, reduction)
        self.mask = nn.Conv2d(channels, 1, 1) if pool == "attention" else None
        self.mul = None if fusion == "add" else _mlp(channels, hidden)
        self.add = None if fusion == "mul" else _mlp(channels, hidden)
        if self.add is not None:
            for parameter in self.add[3].parameters():
                nn.init.zeros_(parameter)
        self.identity_at_start = fusion == "add"
        if self.mask is not None:  # the bias is the same for all keys: the softmax cancels it
            self.zero_gradient = ("mask.bias",)

    def _weights(self, x: Tensor) -> Tensor:
        """The map a, (B, N)."""
        if self.mask is None:
            return torch.full_like(x[:, 0].flatten(1), 1 / x[0, 0].numel())
        return upcast(self.mask(x)).flatten(1).softmax(1)

    def forward(self, x: Tensor) -> Tensor:
        context = (x.flatten(2) @ self._weights(x).to(x.dtype)[:, :, None]).squeeze(2)
        y = x
        if self.mul is not None:
            y = y * self.mul(context).sigmoid()[:, :, None, None]
        if self.add is not None:
            y = y + self.add(context)[:, :, None, None]
        return y

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        return {"spatial": self._weights(x).unflatten(1, x.shape[2:])}


def _mlp(channels: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(channels, hidden),
        nn.LayerNorm(hidden, eps=1e-5),
        nn.ReLU(),
        nn.Linear(hidden, channels),
    )
