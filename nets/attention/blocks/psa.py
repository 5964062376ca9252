"""Pyramid split attention: branches with different kernels, each with a share of the channels.

Zhang, Zu, Lu, Zou, Meng: EPSANet, ACCV 2022, arXiv 2105.14447

    f_b = conv_b x                                       (B, C / 4, H, W), no bias
    e_b = sigmoid(W2 relu(W1 mean over H, W of f_b))     (B, C / 4), all branches share W1 and W2
    a = softmax over b of e_b                            (B, b, C / 4)
    y = concat_b(a_b f_b)                                (B, C, H, W), replaces x
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nets.attention.base import BranchAttention
from nets.attention.layers import divisor_hint, fit_groups, reduced_channels, upcast
from nets.attention.options import KernelSizes, PositiveInt
from nets.attention.registry import register
from utils.core.errors import UserError


@register("psa", family="multi_branch", paper="Zhang et al.: EPSANet, ACCV 2022, arXiv 2105.14447")
class PyramidSplit(BranchAttention):
    """Pyramid split attention; all defaults as in the paper.

    The outputs lie in the order of `kernels`; the authors' code reverses it.

    Args:
        channels: C.
        kernels: kernel size of every branch, odd; their number divides C.
        groups: groups of every branch's convolution, >= 1, reduced to fit.
        reduction: a branch's channels over the hidden width, >= 1.

    Traps:
        - Replaces its input. Softmax of sigmoids keeps the weights of four branches between 0.11
          and 0.48.
        - The authors' code orders the four groups of the output backwards.
    """

    def __init__(
        self,
        channels: int,
        *,
        kernels: KernelSizes = (3, 5, 7, 9),
        groups: Sequence[PositiveInt] = (1, 4, 8, 16),
        reduction: PositiveInt = 16,
    ) -> None:
        super().__init__()
        if len(kernels) != len(groups) or not kernels:
            raise UserError(
                f"psa.groups: expected one number per kernel ({len(kernels)}), got {len(groups)}"
            )
        if channels % len(kernels):
            raise UserError(
                f"psa.kernels: {len(kernels)} branches do not divide {channels} channels"
                f"{divisor_hint(channels)}"
            )
        width = channels // len(kernels)
        self.convs = nn.ModuleList()
        for kernel_size, wanted in zip(kernels, groups, strict=True):
            fitting = fit_groups(wanted, channels, width)
            padding = kernel_size // 2
            self.convs.append(
                nn.Conv2d(channels, width, kernel_size, padding=padding, groups=fitting, bias=False)
            )
        hidden = reduced_channels(width, reduction)
        self.se = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width), nn.Sigmoid()
        )

    def branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = torch.stack([conv(x) for conv in self.convs], 1)
        return features, upcast(self.se(features.mean((3, 4)))).softmax(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.weighted_branches(x).flatten(1, 2)
