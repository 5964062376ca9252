"""Squeeze and excitation: one weight per channel, computed from the means of all channels.

Hu, Shen, Sun: Squeeze-and-Excitation Networks, CVPR 2018, arXiv 1709.01507

    z = mean over H, W of x          (B, C)
    g = sigmoid(W2 relu(W1 z))       (B, C), W1 (m, C), W2 (C, m), m = max(C // reduction, 1)
    y = x * g                        (B, C, H, W)

se uses linear maps; se_conv 1x1 convolutions with biases and a choice of activations, as in
torchvision.
"""

from typing import Literal

from torch import Tensor, nn

from nets.attention.base import ChannelGate
from nets.attention.layers import reduced_channels
from nets.attention.options import PositiveInt
from nets.attention.registry import register

PAPER = "Hu, Shen, Sun: Squeeze-and-Excitation Networks, CVPR 2018, arXiv 1709.01507"


@register("se", family="channel", paper=PAPER)
class SE(ChannelGate):
    """Squeeze and excitation.

    Args:
        channels: C.
        reduction: C over the hidden width, >= 1; 16 as in the paper.
        bias: biases in both linear maps; none as in the reference's YOLOv4-tiny.

    Traps:
        - `C // reduction` may be 0 in other code, which then multiplies everything by 0.5; here the
          hidden width is at least 1.
        - timm rounds the hidden width to a multiple of 8: weights fit only where it is one.
    """

    def __init__(self, channels: int, *, reduction: PositiveInt = 16, bias: bool = False) -> None:
        super().__init__()
        hidden = reduced_channels(channels, reduction)
        self.fc = nn.Sequential(
            nn.Linear(channels, hidden, bias),
            nn.ReLU(),
            nn.Linear(hidden, channels, bias),
            nn.Sigmoid(),
        )

    def gate(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3)))[:, :, None, None]


@register("se_conv", family="channel", paper=PAPER)
class SEConv(ChannelGate):
    """Squeeze and excitation with 1x1 convolutions and biases.

    Args:
        channels: C.
        reduction: C over the hidden width, >= 1; 4 as torchvision's networks use it.
        activation: between the convolutions, relu (paper, MobileNetV3) or silu (EfficientNet).
        gate: sigmoid (paper) or hardsigmoid (MobileNetV3).

    Traps:
        - The second argument of torchvision's `SqueezeExcitation` is the hidden width, not a ratio.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: PositiveInt = 4,
        activation: Literal["relu", "silu"] = "relu",
        gate: Literal["sigmoid", "hardsigmoid"] = "sigmoid",
    ) -> None:
        super().__init__()
        hidden = reduced_channels(channels, reduction)
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, channels, 1)
        self.activation = nn.ReLU() if activation == "relu" else nn.SiLU()
        self.squash = nn.Sigmoid() if gate == "sigmoid" else nn.Hardsigmoid()

    def gate(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3), keepdim=True)
        return self.squash(self.fc2(self.activation(self.fc1(pooled))))
