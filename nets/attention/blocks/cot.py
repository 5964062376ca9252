"""Contextual transformer: every position mixes its neighbors with weights from its surroundings.

Li, Yao, Pan, Mei: Contextual Transformer Networks for Visual Recognition, TPAMI 2022,
arXiv 2107.12292

    k = relu(BN(conv_k x))                              (B, C, H, W), 4 groups
    w = GN(W2 relu(BN(W1 [x; k])) + b2)                 (B, S, k k, H, W), S = C / share, one group
                                                        of GN per set; W1 to C / 2
    u_c(i) = sum over the window j of w_{c mod S}(i, j) v_c(j)    v = BN(conv1x1 x), zeros outside
    a = softmax of W4 relu(BN(W3 z + b3)) + b4          (B, 2, C), z = mean over H, W of u + k
    y = a_0 silu(BN(u)) + a_1 k                         (B, C, H, W), replaces x

The weights w have no softmax. The u in z is the silu(BN(u)) of y. W3 maps to max(C / 2, 32).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.attention.base import BranchAttention
from nets.attention.layers import (
    BatchNorm2d,
    GroupNorm,
    conv_norm_act,
    fit_groups,
    reduced_channels,
    upcast,
)
from nets.attention.options import OddInt, PositiveInt
from nets.attention.registry import register


@register("cot", family="multi_branch", paper="Li et al.: CoTNet, TPAMI 2022, arXiv 2107.12292")
class ContextualTransformer(BranchAttention):
    """Contextual transformer; all defaults as in the paper.

    Args:
        channels: C.
        kernel_size: side of the window, odd.
        share: channels that share a set of weights, >= 1, reduced to a divisor of C.
        residual: add x.

    Traps:
        - Replaces its input: a fresh block shares nothing with it.
        - Channel c uses set c mod S, not c // share.
    """

    def __init__(
        self,
        channels: int,
        *,
        kernel_size: OddInt = 3,
        share: PositiveInt = 8,
        residual: bool = False,
    ) -> None:
        super().__init__()
        sets = channels // fit_groups(share, channels)
        taps, hidden = kernel_size**2, reduced_channels(channels, 2)
        self.key = nn.Sequential(
            *conv_norm_act(channels, channels, kernel_size, groups=fit_groups(4, channels))
        )
        self.embed = nn.Sequential(
            *conv_norm_act(2 * channels, hidden),
            nn.Conv2d(hidden, sets * taps, 1),
            GroupNorm(sets, sets * taps),
        )
        self.value = nn.Sequential(*conv_norm_act(channels, channels)[:-1])
        self.bn = BatchNorm2d(channels)
        fused = max(hidden, 32)
        self.fuse = nn.Sequential(
            *conv_norm_act(channels, fused, bias=True), nn.Conv2d(fused, 2 * channels, 1)
        )
        self.kernel_size = kernel_size
        self.residual = residual
        self.zero_gradient = ("fuse.0.bias",)
        if taps == 1:  # a set is normalized on its own
            self.zero_gradient += ("embed.3.bias",)

    def branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        key = self.key(x)
        weights = self.embed(torch.cat([x, key], 1))
        mixed = F.silu(self.bn(mix_windows(self.value(x), weights, self.kernel_size)))
        pooled = (mixed + key).mean((2, 3), keepdim=True)
        scores = self.fuse(pooled).flatten(1).unflatten(1, (-1, 2)).transpose(1, 2)
        return torch.stack([mixed, key], 1), upcast(scores).softmax(1)

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return x + y if self.residual else y


def mix_windows(value: Tensor, weights: Tensor, kernel_size: int) -> Tensor:
    """Sum each window of `value` with the weights of its center, zeros outside the map.

    One tap at a time, on views: unfolding would hold k k copies of `value`.

    Args:
        value: `(B, C, H, W)`.
        weights: `(B, S * k * k, H, W)`; channel c uses set c mod S.
        kernel_size: k.

    Returns:
        `(B, C, H, W)`.
    """
    height, width = value.shape[2:]
    sets = weights.shape[1] // kernel_size**2
    padded = F.pad(value, [kernel_size // 2] * 4).unflatten(1, (-1, sets))
    by_tap = weights.unflatten(1, (sets, -1)).unbind(2)
    mixed = torch.zeros((), dtype=value.dtype, device=value.device)
    for tap, weight in enumerate(by_tap):
        row, column = divmod(tap, kernel_size)
        window = padded[..., row : row + height, column : column + width]
        mixed = mixed + weight.unsqueeze(1) * window
    return mixed.flatten(1, 2)
