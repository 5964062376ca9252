"""Split attention: one wide convolution whose splits are weighted per channel.

Zhang et al.: ResNeSt: Split-Attention Networks, CVPR Workshops 2022, arXiv 2004.08955

    u = relu(BN(conv x))                                     (B, r * C, H, W), r splits, no bias
    z = W2 relu(BN(W1 mean over H, W of sum_r u))            (B, r * C), in G groups
    a = softmax over the r splits of z, in each group        (B, r, C); r = 1: sigmoid
    y = sum_r a_r u_r                                        (B, C, H, W), replaces x
"""

from torch import Tensor, nn

from nets.attention.base import BranchAttention
from nets.attention.layers import BatchNorm2d, fit_groups, upcast
from nets.attention.options import OddInt, PositiveInt, SmallInt
from nets.attention.registry import register


@register(
    "split",
    family="multi_branch",
    paper="Zhang et al.: ResNeSt, CVPR Workshops 2022, arXiv 2004.08955",
)
class SplitAttention(BranchAttention):
    """Split attention; all defaults as in the paper.

    Args:
        channels: C.
        radix: the number r of splits, >= 1.
        groups: the number G of cardinal groups, >= 1, reduced to fit C.
        reduction: r * C over the hidden width, >= 1; the width is at least 32.
        kernel_size: of the convolution, odd.

    Traps:
        - Replaces its input. timm's default has no norm.
    """

    zero_gradient = ("fc1.bias",)  # the batch normalization after it cancels it

    def __init__(
        self,
        channels: int,
        *,
        radix: SmallInt = 2,
        groups: PositiveInt = 1,
        reduction: PositiveInt = 4,
        kernel_size: OddInt = 3,
    ) -> None:
        super().__init__()
        wide = radix * channels
        hidden = max(wide // reduction, 32)
        self.radix = radix
        self.groups = fit_groups(groups, channels, hidden)
        conv_groups = fit_groups(radix * self.groups, channels)
        padding = kernel_size // 2
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
        scores = upcast(self.fc2(self.relu(self.bn1(self.fc1(pooled)))).flatten(1))
        # scores are ordered (group, radix, channel), features (radix, group, channel)
        scores = scores.unflatten(1, (self.groups, self.radix, -1)).transpose(1, 2).flatten(2)
        return features, scores.softmax(1) if self.radix > 1 else scores.sigmoid()
