"""lka, lska and lsk: a depthwise stack with a large reach weighs every element, without a sigmoid.

Guo, Lu, Liu, Cheng, Hu: Visual Attention Network, CVMJ 2023, arXiv 2202.09741
Lau, Po, Rehman: Large Separable Kernel Attention, ESWA 2024, arXiv 2309.01439
Li, Hou, Zheng, Cheng, Yang, Li: Large Selective Kernel Network, ICCV 2023, arXiv 2303.09030

    y = x * f(x)                             (B, C, H, W)
    y = x + P2 (u * f(u)), u = gelu(P1 x)    with projections

    lka:  f(x) = W dw_b(dw_a x)              a = 2 d - 1, b = ceil(K / d) with dilation d
    lska: the same, each k x k kernel as 1 x k and k x 1, b = floor(K / d)
    lsk:  u = dw_5 x, p = W1 u, q = W2 dw_7(u) with dilation 3                (B, C / 2, H, W)
          s, t = sigmoid(conv_7([mean over the channels; maximum] of [p; q])) (B, 1, H, W)
          f(x) = W (p * s + q * t)

| block            | depthwise kernels, dilation in brackets      | reach    |
| ---------------- | -------------------------------------------- | -------- |
| lka 21, d = 3    | 5, 7 (3)                                     | 23       |
| lska 7 (d = 2)   | 1 x 3, 3 x 1, 1 x 3 (2), 3 x 1 (2)           | 7        |
| lska 23 (d = 3)  | 1 x 5, 5 x 1, 1 x 7 (3), 7 x 1 (3)           | 23       |
| lsk              | 5, 7 (3)                                     | 23       |

All layers have biases; dw is depthwise, P and W 1x1.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.attention.base import AttentionBlock, AttentionMaps
from nets.attention.layers import depthwise
from nets.attention.options import OddInt, SmallInt
from nets.attention.registry import register
from utils.core.errors import UserError


class LargeKernel(AttentionBlock):
    """`y = x * f(x)`, or with projections `y = x + P2 (u * f(u))`; a subclass computes `factor`."""

    def __init__(self, channels: int, projections: bool) -> None:
        super().__init__()
        self.before = nn.Conv2d(channels, channels, 1) if projections else None
        self.after = nn.Conv2d(channels, channels, 1) if projections else None

    def factor(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _inside(self, x: Tensor) -> Tensor:
        return x if self.before is None else F.gelu(self.before(x))

    def forward(self, x: Tensor) -> Tensor:
        inside = self._inside(x)
        weighted = inside * self.factor(inside)
        return weighted if self.after is None else x + self.after(weighted)

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        """Return means of |f|: a factor may be negative."""
        size = self.factor(self._inside(x)).abs()
        return {"channel": size.mean((2, 3)), "spatial": size.mean(1)}


@register("lka", family="spatial", paper="Guo et al.: VAN, CVMJ 2023, arXiv 2202.09741")
class LargeKernelAttention(LargeKernel):
    """Large kernel attention.

    Args:
        channels: C.
        kernel_size: K, odd; 21 as in the paper.
        dilation: d, >= 1; 3 as in the paper. ceil(K / d) must be odd.
        projections: the paper's whole block, which keeps x.

    Traps:
        - The factor has no bounds, and the product is quadratic in x: a fresh block leaves little
          of its input; `projections` keeps x.
    """

    def __init__(
        self,
        channels: int,
        *,
        kernel_size: OddInt = 21,
        dilation: SmallInt = 3,
        projections: bool = False,
    ) -> None:
        super().__init__(channels, projections)
        near, far = 2 * dilation - 1, -(-kernel_size // dilation)
        if far % 2 == 0:
            raise UserError(
                "lka.kernel_size: expected an odd number after division by the dilation, "
                f"rounded up, got {kernel_size} / {dilation} = {far}"
            )
        self.layers = nn.Sequential(
            depthwise(channels, near, near),
            depthwise(channels, far, far, dilation),
            nn.Conv2d(channels, channels, 1),
        )

    def factor(self, x: Tensor) -> Tensor:
        return self.layers(x)


@register("lska", family="spatial", paper="Lau, Po, Rehman: LSKA, ESWA 2024, arXiv 2309.01439")
class LargeSeparableKernelAttention(LargeKernel):
    """Large separable kernel attention.

    Args:
        channels: C.
        kernel_size: K, one of the paper's: 7, 11, 23, 35, 41, 53.
        projections: the paper's whole block, which keeps x.

    Traps:
        - The factor has no bounds: a fresh block leaves little of its input; `projections` keeps x.
        - From kernel 23 on, the border of a 13 x 13 map sees mostly padding.
    """

    def __init__(
        self,
        channels: int,
        *,
        kernel_size: Literal[7, 11, 23, 35, 41, 53] = 7,
        projections: bool = False,
    ) -> None:
        super().__init__(channels, projections)
        dilation = 2 if kernel_size <= 11 else 3
        near, far = 2 * dilation - 1, kernel_size // dilation
        self.layers = nn.Sequential(
            depthwise(channels, 1, near),
            depthwise(channels, near, 1),
            depthwise(channels, 1, far, dilation),
            depthwise(channels, far, 1, dilation),
            nn.Conv2d(channels, channels, 1),
        )

    def factor(self, x: Tensor) -> Tensor:
        return self.layers(x)


@register("lsk", family="spatial", paper="Li et al.: LSKNet, ICCV 2023, arXiv 2303.09030")
class LargeSelectiveKernel(LargeKernel):
    """Large selective kernel: every position weighs a smaller and a larger kernel.

    Args:
        channels: C.
        projections: the paper's whole block, which keeps x.

    Traps:
        - The factor has no bounds: a fresh block leaves little of its input; `projections` keeps x.
        - The selection is one number a position for all channels, not a softmax over the kernels.
    """

    def __init__(self, channels: int, *, projections: bool = False) -> None:
        super().__init__(channels, projections)
        half = max(channels // 2, 1)
        self.near = depthwise(channels, 5, 5)
        self.far = depthwise(channels, 7, 7, 3)
        self.from_near = nn.Conv2d(channels, half, 1)
        self.from_far = nn.Conv2d(channels, half, 1)
        self.select = nn.Conv2d(2, 2, 7, padding=3)
        self.out = nn.Conv2d(half, channels, 1)

    def factor(self, x: Tensor) -> Tensor:
        near = self.near(x)
        parts = [self.from_near(near), self.from_far(self.far(near))]
        both = torch.cat(parts, 1)
        planes = torch.cat([both.mean(1, keepdim=True), both.amax(1, keepdim=True)], 1)
        shares = self.select(planes).sigmoid().split(1, 1)
        return self.out(parts[0] * shares[0] + parts[1] * shares[1])
