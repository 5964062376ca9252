"""Dual attention: over positions, over channels, and both.

Fu, Liu, Tian, Li, Bao, Fang, Lu: Dual Attention Network for Scene Segmentation, CVPR 2019,
arXiv 1809.02983

pam, over positions: the formula of self_attention.
cam, over channels, without projections:
    f = x                                    (B, C, N)
    E = f f^T                                (B, C, C)
    A = softmax over rows of (max_row(E) - E)
    y = x + gamma * A f                      (B, C, H, W)
danet:
    y = x + gamma_p * P(x) + gamma_c * Q(x), P and Q the attended values of pam and cam
danet_head, the segmentation head of the paper, C -> C; it replaces x:
    y = conv1x1(branch(pam) + branch(cam)), branch(a) = conv3x3, BN, relu -> a -> conv3x3, BN, relu

Every gamma is one learned number that starts at 0. With max - E, as in the authors' code, a channel
attends most to the least similar ones.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from nets.attention.base import AttentionBlock, AttentionMaps
from nets.attention.blocks.self_attention import AttendedValues, SelfAttention
from nets.attention.layers import conv_norm_act, no_autocast, reduced_channels, upcast
from nets.attention.options import PositiveInt
from nets.attention.registry import register

PAPER = "Fu, Liu, Tian, Li, Bao, Fang, Lu: Dual Attention Network, CVPR 2019, arXiv 1809.02983"


@register(
    "pam",
    family="self_attention",
    paper="Fu et al.: Dual Attention Network, CVPR 2019, arXiv 1809.02983",
)
class PositionAttention(SelfAttention):
    """Position attention module: computes the same as `self_attention`.

    Args:
        channels: C.
        reduction: C over the width of queries and keys, >= 1; 8 as in the authors' code.

    Traps:
        - Time grows with N^2: keep it to maps of 26 x 26 and below.
    """


def channel_weights(x: Tensor) -> Tensor:
    """The matrix A of cam, (B, C, C), float32.

    softmax(max - E) is softmax(-E): a constant added to a row cancels out.
    """
    features = upcast(x).flatten(2)
    with no_autocast(x):
        return ((-features) @ features.transpose(1, 2)).softmax(2)


def channel_attention(x: Tensor) -> Tensor:
    """A f of cam, (B, C, H, W)."""
    with no_autocast(x):
        attended = channel_weights(x) @ upcast(x).flatten(2)
    return attended.to(x.dtype).unflatten(2, x.shape[2:])


@register("cam", family="channel", paper=PAPER)
class ChannelAttention(AttentionBlock):
    """Channel attention module; its map is how much all channels together attend to each.

    Args:
        channels: C.

    Traps:
        - E is an unscaled sum over N: larger inputs sharpen A, so train and test at one size.
        - `max - E` turns the order round; softmax(E) would be another block.
    """

    identity_at_start = True

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma * channel_attention(x)

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        return {"channel": channel_weights(x).mean(1)}


@register("danet", family="self_attention", paper=PAPER)
class DANet(AttentionBlock):
    """Position and channel attention, side by side.

    Args:
        channels: C.
        reduction: of pam, >= 1; 8 as in the authors' code.
        residual: once as above, or both: x is added twice, as when the authors' two modules are
            summed.

    Traps:
        - Summing the authors' two modules (`residual: both`) doubles the features of a pretrained
          network at start.
    """

    zero_gradient = ("position.key.bias",)  # the same for all keys: the softmax cancels it

    def __init__(
        self,
        channels: int,
        *,
        reduction: PositiveInt = 8,
        residual: Literal["once", "both"] = "once",
    ) -> None:
        super().__init__()
        self.position = AttendedValues(channels, reduction)
        self.gamma_position = nn.Parameter(torch.zeros(()))
        self.gamma_channel = nn.Parameter(torch.zeros(()))
        self.twice = residual == "both"
        self.identity_at_start = not self.twice

    def forward(self, x: Tensor) -> Tensor:
        positions = self.gamma_position * self.position(x)
        channels = self.gamma_channel * channel_attention(x)
        return (2 * x if self.twice else x) + (positions + channels)

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        return {"query": self.position.row(x, point), "channel": channel_weights(x).mean(1)}


@register("danet_head", family="self_attention", paper=PAPER)
class DANetHead(AttentionBlock):
    """The paper's head on C // 4 channels, without its dropout and auxiliary outputs.

    Args:
        channels: C.
        reduction: of pam on the C // 4 channels, >= 1; 8 as in the authors' code.

    Traps:
        - A head rather than an attention block: it replaces the features, and has two 3x3
          convolutions for each branch.
    """

    zero_gradient = ("position.3.attended.key.bias",)  # see SelfAttention

    def __init__(self, channels: int, *, reduction: PositiveInt = 8) -> None:
        super().__init__()
        width = reduced_channels(channels, 4)
        self.position = _branch(channels, width, SelfAttention(width, reduction=reduction))
        self.channel = _branch(channels, width, ChannelAttention(width))
        self.out = nn.Conv2d(width, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.position(x) + self.channel(x))

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        position = self.position[3]
        assert isinstance(position, SelfAttention)
        return position.attention(self.position[:3](x), point)


def _branch(channels: int, width: int, block: nn.Module) -> nn.Sequential:
    return nn.Sequential(*conv_norm_act(channels, width, 3), block, *conv_norm_act(width, width, 3))
