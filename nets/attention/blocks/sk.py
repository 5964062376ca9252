"""Selective kernels: branches with different kernels, weighted per channel.

Li, Wang, Hu, Yang: Selective Kernel Networks, CVPR 2019, arXiv 1903.06586

    u_b = relu(BN(conv_b x))                         (B, C, H, W), grouped, no bias
    z = relu(BN(W mean over H, W of sum_b u_b))      (B, d), d = max(C // reduction, min_channels)
    a = softmax over b of W_b z                      (B, b, C)
    y = sum_b a_b u_b                                (B, C, H, W), replaces x
"""

import torch
from torch import Tensor, nn

from nets.attention.base import BranchAttention
from nets.attention.layers import conv_norm_act, fit_groups, upcast
from nets.attention.options import KernelSizes, PositiveInt
from nets.attention.registry import register
from utils.core.errors import UserError


@register(
    "sk",
    family="multi_branch",
    paper="Li, Wang, Hu, Yang: Selective Kernel Networks, CVPR 2019, arXiv 1903.06586",
)
class SelectiveKernel(BranchAttention):
    """Selective kernels; all defaults as in the paper.

    Args:
        channels: C.
        kernels: kernel size of every branch, odd.
        dilated: replace a kernel above 3 by a 3x3 with the same reach.
        groups: of the branches' convolutions, >= 1, reduced to a divisor of C.
        reduction: C over d, >= 1.
        min_channels: smallest d, >= 1.

    Traps:
        - Replaces its input; by default timm's splits the input among the branches instead.
    """

    def __init__(
        self,
        channels: int,
        *,
        kernels: KernelSizes = (3, 5),
        dilated: bool = True,
        groups: PositiveInt = 32,
        reduction: PositiveInt = 16,
        min_channels: PositiveInt = 32,
    ) -> None:
        super().__init__()
        if not kernels:
            raise UserError("sk.kernels: expected at least one odd number, got []")
        hidden = max(channels // reduction, min_channels)
        groups = fit_groups(groups, channels)
        self.paths = nn.ModuleList(_path(channels, kernel, dilated, groups) for kernel in kernels)
        self.fuse = nn.Sequential(*conv_norm_act(channels, hidden))
        self.select = nn.Conv2d(hidden, len(kernels) * channels, 1, bias=False)

    def branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = torch.stack([path(x) for path in self.paths], 1)
        pooled = features.sum(1).mean((2, 3), keepdim=True)
        scores = self.select(self.fuse(pooled)).flatten(1).unflatten(1, features.shape[1:3])
        return features, upcast(scores).softmax(1)


def _path(channels: int, kernel_size: int, dilated: bool, groups: int) -> nn.Sequential:
    dilation = 1
    if dilated and kernel_size > 3:
        dilation = (kernel_size - 1) // 2
        kernel_size = 3
    return nn.Sequential(
        *conv_norm_act(channels, channels, kernel_size, dilation=dilation, groups=groups)
    )
