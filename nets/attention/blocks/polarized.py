"""Polarized self-attention: a channel gate and a spatial gate, each at full resolution on its axis.

Liu, Liu, Fan, Huang: Polarized Self-Attention: Towards High-quality Pixel-wise Regression,
arXiv 2107.00782

    a = softmax over N of W_q x                        (B, N)
    c = sigmoid(LN(W_z (W_v x) a))                     (B, C, 1, 1), W_v to C / 2, W_z back to C
    b = softmax over C / 2 of W_k (mean over N of x)   (B, C / 2)
    p = sigmoid(b . (W_u x))                           (B, 1, H, W), W_u to C / 2
    parallel:   y = x * c + x * p                      (B, C, H, W)
    sequential: y = x1 * p(x1), x1 = x * c

`variant` code is what the authors published, without biases:

    parallel:   no LN; p = sigmoid(softmax over N of b . (W_u x)), b without softmax
    sequential: W_z is C / 2 -> C / 8, LN, ReLU, C / 8 -> C, with biases;
                p = sigmoid(b . softmax over N of (W_u x)), b without softmax

(W_v x) a is computed as W_v (x a), and b . (W_u x) as (b W_u) x: no map of C / 2 channels.
"""

from typing import Literal

from torch import Tensor, nn

from nets.attention.base import DualGate
from nets.attention.layers import GroupNorm, reduced_channels, upcast
from nets.attention.registry import register


class PolarizedChannel(nn.Module):
    """The gate c, `(B, C, 1, 1)`."""

    def __init__(self, channels: int, paper: bool, bottleneck: bool) -> None:
        super().__init__()
        half = reduced_channels(channels, 2)
        self.query = nn.Conv2d(channels, 1, 1, bias=paper)
        self.value = nn.Conv2d(channels, half, 1, bias=paper)
        if bottleneck:
            narrow = reduced_channels(half, 4)
            self.out = nn.Sequential(
                nn.Conv2d(half, narrow, 1),
                GroupNorm(1, narrow),
                nn.ReLU(),
                nn.Conv2d(narrow, channels, 1),
            )
        else:
            norm = [GroupNorm(1, channels)] if paper else []
            self.out = nn.Sequential(nn.Conv2d(half, channels, 1, bias=paper), *norm)

    def forward(self, x: Tensor) -> Tensor:
        weights = upcast(self.query(x)).flatten(2).softmax(2).to(x.dtype)
        pooled = weights @ x.flatten(2).transpose(1, 2)  # (B, 1, C)
        return self.out(self.value(pooled.transpose(1, 2).unsqueeze(3))).sigmoid()


class PolarizedSpatial(nn.Module):
    """The gate p, `(B, 1, H, W)`.

    Args:
        channels: C.
        bias: biases in both convolutions.
        softmax: what the softmax normalizes: query, value or product.
    """

    def __init__(
        self, channels: int, bias: bool, softmax: Literal["query", "value", "product"]
    ) -> None:
        super().__init__()
        half = reduced_channels(channels, 2)
        self.query = nn.Conv2d(channels, half, 1, bias=bias)
        self.value = nn.Conv2d(channels, half, 1, bias=bias)
        self.softmax = softmax

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x.mean((2, 3), keepdim=True)).flatten(2).transpose(1, 2)  # (B, 1, C / 2)
        if self.softmax == "query":
            query = upcast(query).softmax(2).to(x.dtype)
        if self.softmax == "value":
            values = upcast(self.value(x)).flatten(2).softmax(2).to(x.dtype)
            scores = query @ values
        else:
            scores = self._product(query, x)
        if self.softmax == "product":
            scores = upcast(scores).softmax(2)
        return scores.sigmoid().unflatten(2, x.shape[2:]).to(x.dtype)

    def _product(self, query: Tensor, x: Tensor) -> Tensor:
        """Compute query . value(x), `(B, 1, N)`, without the map of values."""
        scores = (query @ self.value.weight.flatten(1)) @ x.flatten(2)
        if self.value.bias is None:
            return scores
        return scores + query @ self.value.bias[:, None]


@register("polarized", family="mixed", paper="Liu, Liu, Fan, Huang: PSA, 2021, arXiv 2107.00782")
class PolarizedSelfAttention(DualGate):
    """Polarized self-attention.

    Args:
        channels: C.
        mode: parallel or sequential.
        variant: paper or code, see above.

    Traps:
        - `variant: code` in parallel mode has a spatial gate between 0.5 and 0.73, constant but on
          tiny maps.
    """

    def __init__(
        self,
        channels: int,
        *,
        mode: Literal["parallel", "sequential"] = "parallel",
        variant: Literal["paper", "code"] = "paper",
    ) -> None:
        super().__init__()
        self.parallel, paper = mode == "parallel", variant == "paper"
        softmax: Literal["value", "product"] = "product" if self.parallel else "value"
        bottleneck = not paper and not self.parallel
        self.channel = PolarizedChannel(channels, paper, bottleneck)
        self.spatial = PolarizedSpatial(channels, paper, "query" if paper else softmax)
        if paper:  # the same for all positions: the softmax cancels it
            self.zero_gradient = ("channel.query.bias",)

    def gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        channel = self.channel(x)
        return channel, self.spatial(x if self.parallel else x * channel)

    def forward(self, x: Tensor) -> Tensor:
        channel, spatial = self.gates(x)
        by_channel = x * channel
        return by_channel + x * spatial if self.parallel else by_channel * spatial
