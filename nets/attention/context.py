"""Global context: one summary of the image, added to or multiplied with every position.

gc  Cao, Xu, Lin, Wei, Hu: GCNet: Non-local Networks Meet Squeeze-Excitation Networks, ICCV Workshops 2019,
    arXiv 1904.11492

A non-local block whose attention map is the same for every query, so it is computed once:
a = softmax over N of (w . x + b)   (B, 1, N)   where to look
c = x a^T                           (B, C)      what is there
t = W2 relu(LN(W1 c + b1)) + b2     (B, C)      LN over the m = max(C // reduction, 1) values
add: y = x + t;  mul: y = x * sigmoid(t);  both: mul, then add, with an MLP each
"""

from typing import Literal

import torch
from torch import Tensor, nn

from nets.attention.layers import AttentionBlock, Maps, full, narrow
from nets.attention.options import Count
from nets.attention.registry import register


def _mlp(channels: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(channels, hidden),
        nn.LayerNorm(hidden, eps=1e-5),
        nn.ReLU(),
        nn.Linear(hidden, channels),
    )


@register(
    "gc",
    family="channel",
    paper="Cao, Xu, Lin, Wei, Hu: GCNet, ICCV Workshops 2019, arXiv 1904.11492",
)
class GlobalContext(AttentionBlock):
    """Global context block. `pool`: average instead of the learnt map. The last layer of the add branch starts at 0."""

    def __init__(
        self,
        channels: int,
        *,
        reduction: Count = 16,
        pool: Literal["attention", "average"] = "attention",
        fusion: Literal["add", "mul", "both"] = "add",
    ) -> None:
        super().__init__()
        hidden = narrow(channels, reduction)
        self.mask = nn.Conv2d(channels, 1, 1) if pool == "attention" else None
        self.mul = None if fusion == "add" else _mlp(channels, hidden)
        self.add = None if fusion == "mul" else _mlp(channels, hidden)
        if self.add is not None:
            for parameter in self.add[3].parameters():
                nn.init.zeros_(parameter)
        self.identity_at_start = fusion == "add"
        self.zero_gradient = (
            () if self.mask is None else ("mask.bias",)
        )  # the same for all keys of the softmax

    def _where(self, x: Tensor) -> Tensor:
        """The map a, (B, N), each row sums to 1."""
        if self.mask is None:
            return torch.full_like(x[:, 0].flatten(1), 1 / x[0, 0].numel())
        return full(self.mask(x)).flatten(1).softmax(1)

    def forward(self, x: Tensor) -> Tensor:
        context = (x.flatten(2) @ self._where(x).to(x.dtype)[:, :, None]).squeeze(2)
        y = x
        if self.mul is not None:
            y = y * self.mul(context).sigmoid()[:, :, None, None]
        if self.add is not None:
            y = y + self.add(context)[:, :, None, None]
        return y

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> Maps:
        return {"spatial": self._where(x).unflatten(1, x.shape[2:])}
