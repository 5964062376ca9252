"""Efficient local attention: one gate per row and one per column, from neighboring rows or columns.

Xu, Wan: ELA: Efficient Local Attention for Deep Convolutional Neural Networks, arXiv 2403.01123

    f(t) = sigmoid(GN(conv1d_k(t)))                         (B, C, L), along the rows or columns
    y = x * f(mean over W of x) * f(mean over H of x)       (B, C, H, W), the same f for both

| variant of the paper | kernel_size | width | norm_groups |
| -------------------- | ----------- | ----- | ----------- |
| base (default)       | 7           | 1     | 16          |
| tiny                 | 5           | 1     | 32          |
| small                | 5           | 8     | 16          |
| large                | 7           | 8     | 16          |
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from nets.attention.base import CoordinateGate
from nets.attention.layers import GroupNorm, fit_groups
from nets.attention.options import OddInt, PositiveInt
from nets.attention.registry import register


@register("ela", family="spatial", paper="Xu, Wan: ELA, 2024, arXiv 2403.01123")
class EfficientLocalAttention(CoordinateGate):
    """Efficient local attention.

    Args:
        channels: C.
        kernel_size: of the convolution, odd.
        width: channels that a convolution group mixes, >= 1, reduced to a divisor of C; 0: all C.
        norm_groups: groups of the normalization, >= 1, reduced to a divisor of C.
        bias: bias of the convolution.

    Traps:
        - Two gates multiply: a fresh block leaves a quarter of its input.
        - A kernel of 1, as in a common copy, sees no neighbor; its local attention is none.
    """

    def __init__(
        self,
        channels: int,
        *,
        kernel_size: OddInt = 7,
        width: Annotated[int, Field(ge=0, le=4096)] = 1,
        norm_groups: PositiveInt = 16,
        bias: bool = False,
    ) -> None:
        super().__init__()
        groups = channels // fit_groups(width, channels)  # gcd(0, C) = C
        self.conv = nn.Conv1d(
            channels, channels, kernel_size, padding=kernel_size // 2, groups=groups, bias=bias
        )
        norm_groups = fit_groups(norm_groups, channels)
        self.norm = GroupNorm(norm_groups, channels)
        if bias and norm_groups == channels:  # a normalization per channel cancels it
            self.zero_gradient = ("conv.bias",)

    def gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        # normalized as maps: OpenCV 5.0 has no group normalization of sequences
        rows, columns = (
            self.norm(self.conv(x.mean(axis)).unsqueeze(axis)).sigmoid() for axis in (3, 2)
        )
        return rows, columns
