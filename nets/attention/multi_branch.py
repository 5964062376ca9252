"""Parallel branches, and a softmax over the branches for every channel. These blocks replace x: no residual.

sk     Li, Wang, Hu, Yang: Selective Kernel Networks, CVPR 2019, arXiv 1903.06586
       u_b = relu(BN(conv_b x)), kernels 3 and 5 (as 3x3 with dilation 2), grouped; z = relu(BN(W mean_HW(sum_b u_b)))
       (B, d), d = max(C // r, min); a = softmax over b of W_b z (B, b, C); y = sum_b a_b u_b
psa    Zhang, Zu, Lu, Zou, Meng: EPSANet, ACCV 2022, arXiv 2105.14447
       f_b = conv_b x (B, C/4, H, W), kernels 3, 5, 7, 9; e_b = sigmoid(W2 relu(W1 mean_HW f_b)), W shared by branches;
       a = softmax over b of e_b; y = concat_b(a_b f_b)
split  Zhang et al.: ResNeSt: Split-Attention Networks, CVPR Workshops 2022, arXiv 2004.08955
       u = relu(BN(conv3x3 x)) (B, r*C, H, W), r splits; z = W2 relu(BN(W1 mean_HW(sum_r u))), G groups;
       a = softmax over the r splits within each group (r = 1: sigmoid); y = sum_r a_r u_r
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nets.attention.layers import (
    AttentionBlock,
    BatchNorm2d,
    Maps,
    divisors,
    fit_groups,
    full,
    narrow,
)
from nets.attention.options import Count, Odd
from nets.attention.registry import register
from utils.core.errors import UserError


class Branches(AttentionBlock):
    """A subclass gives `branches(x)`: features (B, b, c, H, W) and their weights (B, b, c)."""

    def branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def _weighted(self, x: Tensor) -> Tensor:
        features, weights = self.branches(x)
        return features * weights.to(features.dtype)[..., None, None]

    def forward(self, x: Tensor) -> Tensor:
        return self._weighted(x).sum(1)

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> Maps:
        return {"branch": self.branches(x)[1]}


@register(
    "sk",
    family="multi_branch",
    paper="Li, Wang, Hu, Yang: Selective Kernel Networks, CVPR 2019, arXiv 1903.06586",
)
class SelectiveKernel(Branches):
    """Selective kernels. `dilated`: a kernel k > 3 is a 3x3 of the same reach. `groups` shrink to fit C."""

    def __init__(
        self,
        channels: int,
        *,
        kernels: Sequence[Odd] = (3, 5),
        dilated: bool = True,
        groups: Count = 32,
        reduction: Count = 16,
        min_channels: Count = 32,
    ) -> None:
        super().__init__()
        if not kernels:
            raise UserError("sk.kernels: expected at least one odd number, got []")
        hidden = max(channels // reduction, min_channels)
        groups = fit_groups(groups, channels)
        self.paths = nn.ModuleList(_path(channels, kernel, dilated, groups) for kernel in kernels)
        self.fuse = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False), BatchNorm2d(hidden), nn.ReLU()
        )
        self.select = nn.Conv2d(hidden, len(kernels) * channels, 1, bias=False)

    def branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = torch.stack([path(x) for path in self.paths], 1)
        pooled = features.sum(1).mean((2, 3), keepdim=True)
        scores = self.select(self.fuse(pooled)).flatten(1).unflatten(1, features.shape[1:3])
        return features, full(scores).softmax(1)


def _path(channels: int, kernel: int, dilated: bool, groups: int) -> nn.Sequential:
    size, dilation = (3, (kernel - 1) // 2) if dilated and kernel > 3 else (kernel, 1)
    padding = dilation * (size // 2)
    conv = nn.Conv2d(
        channels, channels, size, padding=padding, dilation=dilation, groups=groups, bias=False
    )
    return nn.Sequential(conv, BatchNorm2d(channels), nn.ReLU())


@register("psa", family="multi_branch", paper="Zhang et al.: EPSANet, ACCV 2022, arXiv 2105.14447")
class PyramidSplit(Branches):
    """Pyramid split attention, branches in the order of `kernels`. Their number divides C; `groups` shrink to fit."""

    def __init__(
        self,
        channels: int,
        *,
        kernels: Sequence[Odd] = (3, 5, 7, 9),
        groups: Sequence[Count] = (1, 4, 8, 16),
        reduction: Count = 16,
    ) -> None:
        super().__init__()
        if len(kernels) != len(groups) or not kernels:
            raise UserError(
                f"psa.groups: expected one number a kernel ({len(kernels)}), got {len(groups)}"
            )
        if channels % len(kernels):
            raise UserError(
                f"psa.kernels: {len(kernels)} branches do not divide {channels} channels{divisors(channels)}"
            )
        width = channels // len(kernels)
        self.convs = nn.ModuleList(
            nn.Conv2d(
                channels,
                width,
                k,
                padding=k // 2,
                groups=fit_groups(g, channels, width),
                bias=False,
            )
            for k, g in zip(kernels, groups, strict=True)
        )
        hidden = narrow(width, reduction)
        self.se = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width), nn.Sigmoid()
        )

    def branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = torch.stack([conv(x) for conv in self.convs], 1)
        return features, full(self.se(features.mean((3, 4)))).softmax(1)

    def forward(self, x: Tensor) -> Tensor:
        return self._weighted(x).flatten(1, 2)


@register(
    "split",
    family="multi_branch",
    paper="Zhang et al.: ResNeSt, CVPR Workshops 2022, arXiv 2004.08955",
)
class SplitAttention(Branches):
    """Split attention. `radix`: splits r; `groups`: cardinal groups G, which shrink to fit C."""

    zero_gradient = ("fc1.bias",)  # the batch normalization after it subtracts it

    def __init__(
        self,
        channels: int,
        *,
        radix: Count = 2,
        groups: Count = 1,
        reduction: Count = 4,
        kernel_size: Odd = 3,
    ) -> None:
        super().__init__()
        hidden = max(radix * channels // reduction, 32)
        self.radix, self.groups = radix, fit_groups(groups, channels, hidden)
        wide, padding = radix * channels, kernel_size // 2
        conv_groups = fit_groups(radix * self.groups, channels)
        self.conv = nn.Conv2d(
            channels, wide, kernel_size, padding=padding, groups=conv_groups, bias=False
        )
        self.bn0 = BatchNorm2d(wide)
        self.fc1 = nn.Conv2d(channels, hidden, 1, groups=self.groups)
        self.bn1 = BatchNorm2d(hidden)
        self.fc2 = nn.Conv2d(hidden, wide, 1, groups=self.groups)
        self.relu = nn.ReLU()

    def branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.relu(self.bn0(self.conv(x))).unflatten(1, (self.radix, -1))
        pooled = features.sum(1).mean((2, 3), keepdim=True)
        scores = full(self.fc2(self.relu(self.bn1(self.fc1(pooled)))).flatten(1))
        scores = (
            scores.unflatten(1, (self.groups, self.radix, -1)).transpose(1, 2).flatten(2)
        )  # (B, r, C)
        return features, scores.softmax(1) if self.radix > 1 else scores.sigmoid()
