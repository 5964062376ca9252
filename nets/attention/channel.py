"""Channel gates from pooled features: one weight a channel, `y = x * g`.

se       Hu, Shen, Sun: Squeeze-and-Excitation Networks, CVPR 2018, arXiv 1709.01507
se_conv  the same with 1x1 convolutions, biases and a choice of activations (as in MobileNetV3, torchvision)
eca      Wang, Wu, Zhu, Li, Zuo, Hu: ECA-Net, CVPR 2020, arXiv 1910.03151

All squeeze by the mean, z = mean over H, W of x: (B, C, H, W) -> (B, C). They differ in how z becomes the gate g:
se:   g = sigmoid(W2 relu(W1 z)), W1 (m, C), W2 (C, m), m = max(C // reduction, 1): every channel sees every other
eca:  g = sigmoid(conv1d_k(z)), z as a sequence of length C: every channel sees its k neighbors, k grows with log C
"""

import math
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from nets.attention.layers import AttentionBlock, Maps, narrow
from nets.attention.options import Count, Odd
from nets.attention.registry import register

SE_PAPER = "Hu, Shen, Sun: Squeeze-and-Excitation Networks, CVPR 2018, arXiv 1709.01507"
ECA_PAPER = "Wang, Wu, Zhu, Li, Zuo, Hu: ECA-Net, CVPR 2020, arXiv 1910.03151"


class ChannelGate(AttentionBlock):
    """`y = x * gate(x)`; a subclass gives `gate(x)` of shape `(B, C, 1, 1)`."""

    def gate(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> Maps:
        return {"channel": self.gate(x).flatten(1)}


@register("se", family="channel", paper=SE_PAPER)
class SE(ChannelGate):
    """Squeeze and excitation. `reduction`: C over the hidden width. `bias`: biases in both linear maps."""

    def __init__(self, channels: int, *, reduction: Count = 16, bias: bool = False) -> None:
        super().__init__()
        hidden = narrow(channels, reduction)
        self.fc = nn.Sequential(
            nn.Linear(channels, hidden, bias),
            nn.ReLU(),
            nn.Linear(hidden, channels, bias),
            nn.Sigmoid(),
        )

    def gate(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3)))[:, :, None, None]


@register("se_conv", family="channel", paper=SE_PAPER)
class SEConv(ChannelGate):
    """Squeeze and excitation with 1x1 convolutions and biases; `gate_activation` of torchvision is `gate` here."""

    def __init__(
        self,
        channels: int,
        *,
        reduction: Count = 4,
        activation: Literal["relu", "silu"] = "relu",
        gate: Literal["sigmoid", "hardsigmoid"] = "sigmoid",
    ) -> None:
        super().__init__()
        hidden = narrow(channels, reduction)
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, channels, 1)
        self.activation = nn.ReLU() if activation == "relu" else nn.SiLU()
        self.squash = nn.Sigmoid() if gate == "sigmoid" else nn.Hardsigmoid()

    def gate(self, x: Tensor) -> Tensor:
        return self.squash(self.fc2(self.activation(self.fc1(x.mean((2, 3), keepdim=True)))))


@register("eca", family="channel", paper=ECA_PAPER)
class ECA(ChannelGate):
    """Efficient channel attention. Kernel width: t = int(|log2(C) + b| / gamma), made odd; `kernel_size` overrides."""

    def __init__(
        self,
        channels: int,
        *,
        gamma: Annotated[float, Field(gt=0)] = 2,
        b: float = 1,
        kernel_size: Odd | None = None,
    ) -> None:
        super().__init__()
        width = int(abs(math.log2(channels) + b) / gamma)
        kernel = kernel_size or (width if width % 2 else width + 1)
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)

    def gate(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3))[:, None]  # (B, 1, C): the channels as a sequence
        return self.conv(pooled).sigmoid().transpose(1, 2)[..., None]
