"""Frequency channel attention: squeeze and excitation with a discrete cosine transform as pooling.

Qin, Zhang, Wu, Li: FcaNet: Frequency Channel Attention Networks, ICCV 2021, arXiv 2012.11879

    p = adaptive average pooling of x to n x n         (B, C, n, n)
    z_c = sum over i, j of p_c(i, j) b_u(i) b_v(j)     (B, C), u along H, v along W
    b_u(i) = cos(pi u (i + 1/2) / n) / sqrt(n)         times sqrt(2) for u > 0
    y = x * sigmoid(W2 relu(W1 z))                     (B, C, H, W), no biases

The channels form F equal groups; each has its own frequencies (u, v), the first of a list that the
authors found on ImageNet (top), or of low ones.
"""

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from nets.attention.base import ChannelGate
from nets.attention.layers import channel_mlp, fit_groups
from nets.attention.options import PositiveInt
from nets.attention.registry import register

# digit pairs u v for a 7 x 7 grid
SELECTIONS = {
    "top": "00 01 60 05 02 10 12 40 50 16 30 04 06 03 35 22 "
    "46 63 33 53 55 21 61 52 54 32 31 41 23 20 65 13",
    "low": "00 01 10 11 02 20 21 12 22 03 30 40 04 13 31 05 "
    "14 23 32 41 50 06 15 24 33 42 51 60 16 25 34 43",
}


@register("fca", family="channel", paper="Qin, Zhang, Wu, Li: FcaNet, ICCV 2021, arXiv 2012.11879")
class FrequencyChannelAttention(ChannelGate):
    """Frequency channel attention; the authors' code sets n by the width of the stage.

    Args:
        channels: C.
        reduction: C over the hidden width, >= 1; 16 as in the paper.
        size: side n of the grid, 7 to 64.
        frequencies: F, a power of 2 up to 32, reduced to a divisor of C.
        selection: list of the frequencies, top or low.

    Traps:
        - With one frequency it is se on n times the mean.
        - The list `top` was found on a classifier of ImageNet; on a constant map all groups but one
          see 0.
    """

    basis: Tensor

    def __init__(
        self,
        channels: int,
        *,
        reduction: PositiveInt = 16,
        size: Annotated[int, Field(ge=7, le=64)] = 7,
        frequencies: Literal[1, 2, 4, 8, 16, 32] = 16,
        selection: Literal["top", "low"] = "top",
    ) -> None:
        super().__init__()
        count = fit_groups(frequencies, channels)
        pairs = SELECTIONS[selection].split()[:count]
        basis = torch.stack([_basis(pair, size) for pair in pairs])
        self.register_buffer("basis", basis.repeat_interleave(channels // count, 0), False)
        self.fc = channel_mlp(channels, reduction, bias=False)
        self.size = size

    def gate(self, x: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(x, self.size)
        return self.fc((pooled * self.basis).sum((2, 3), keepdim=True)).sigmoid()


def _basis(pair: str, size: int) -> Tensor:
    """Return b_u(i) b_v(j), `(size, size)`; u and v are multiples of the two digits in `pair`."""
    return torch.outer(*(_cosine(int(digit) * (size // 7), size) for digit in pair))


def _cosine(frequency: int, size: int) -> Tensor:
    angles = (torch.arange(size) + 0.5) * (math.pi * frequency / size)
    return angles.cos() * math.sqrt((2 if frequency else 1) / size)
