"""Attention over channels, alone and beside attention over positions.

Fu, Liu, Tian, Li, Bao, Fang, Lu: Dual Attention Network for Scene Segmentation, CVPR 2019, arXiv 1809.02983

cam         f = x (B, C, N); E = f f^T (B, C, C); A = softmax over rows of (max_row(E) - E); y = x + gamma * A f.
            No projections, one parameter. The minus is the paper's code: a channel attends most to the *least*
            similar ones. E is a sum over N, unscaled: its sharpness changes with the input size.
danet       y = x + gamma_p * P(x) + gamma_c * Q(x), P and Q the attended values of pam and cam.
danet_head  the segmentation head of the paper, C -> C: per branch conv3x3 C->C/4, BN, ReLU, pam or cam, conv3x3,
            BN, ReLU; the sum through a 1x1. It replaces x.
Every gamma is one learnt number that starts at 0.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from nets.attention.layers import AttentionBlock, BatchNorm2d, Maps, full, narrow, no_autocast
from nets.attention.options import Count
from nets.attention.registry import register
from nets.attention.self_attention import PositionAttention, SelfAttention

PAPER = "Fu, Liu, Tian, Li, Bao, Fang, Lu: Dual Attention Network, CVPR 2019, arXiv 1809.02983"


def channel_weights(x: Tensor) -> Tensor:
    """The matrix A, (B, C, C), float32. softmax(max - E) is softmax(-E): a row's constant cancels."""
    features = full(x).flatten(2)
    with no_autocast(x):
        return (-(features @ features.transpose(1, 2))).softmax(2)


def channel_attention(x: Tensor) -> Tensor:
    """X -> A f, (B, C, H, W)."""
    with no_autocast(x):
        return (channel_weights(x) @ full(x).flatten(2)).to(x.dtype).unflatten(2, x.shape[2:])


@register("cam", family="channel", paper=PAPER)
class ChannelAttention(AttentionBlock):
    """Channel attention module. Its image, `channel`: how much all channels together attend to each."""

    identity_at_start = True

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma * channel_attention(x)

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> Maps:
        return {"channel": channel_weights(x).mean(1)}


@register("danet", family="self_attention", paper=PAPER)
class DANet(AttentionBlock):
    """Position and channel attention. `residual`: both adds x twice, as the two modules summed as they stand do."""

    zero_gradient = ("position.key.bias",)

    def __init__(
        self, channels: int, *, reduction: Count = 8, residual: Literal["once", "both"] = "once"
    ) -> None:
        super().__init__()
        self.position = PositionAttention(channels, reduction)
        self.gamma_position = nn.Parameter(torch.zeros(()))
        self.gamma_channel = nn.Parameter(torch.zeros(()))
        self.twice = residual == "both"
        self.identity_at_start = not self.twice

    def forward(self, x: Tensor) -> Tensor:
        attended = self.gamma_position * self.position(x) + self.gamma_channel * channel_attention(
            x
        )
        return (2 * x if self.twice else x) + attended

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> Maps:
        return {"query": self.position.row(x, point), "channel": channel_weights(x).mean(1)}


@register("danet_head", family="self_attention", paper=PAPER)
class DANetHead(AttentionBlock):
    """The paper's head, without dropout and auxiliary outputs. `reduction`: of pam, on the C/4 channels."""

    zero_gradient = ("position.3.attended.key.bias",)

    def __init__(self, channels: int, *, reduction: Count = 8) -> None:
        super().__init__()
        width = narrow(channels, 4)
        self.position = _branch(channels, width, SelfAttention(width, reduction=reduction))
        self.channel = _branch(channels, width, ChannelAttention(width))
        self.out = nn.Conv2d(width, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.position(x) + self.channel(x))

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> Maps:
        position = self.position[3]
        assert isinstance(position, SelfAttention)
        return position.attention(self.position[:3](x), point)


def _branch(channels: int, width: int, block: nn.Module) -> nn.Sequential:
    return nn.Sequential(*_conv(channels, width), block, *_conv(width, width))


def _conv(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), BatchNorm2d(outputs), nn.ReLU()]
