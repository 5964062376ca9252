"""Gates over channels and positions.

cbam  Woo, Park, Lee, Kweon: CBAM: Convolutional Block Attention Module, ECCV 2018, arXiv 1807.06521
      x1 = x * sigmoid(F(mean_HW x) + F(max_HW x)), F = W2 relu(W1 .), shared, no bias: first which channels,
      y = x1 * sigmoid(conv_k([mean_C x1; max_C x1])), (B, 2, H, W) -> (B, 1, H, W): then which positions
ca    Hou, Zhou, Feng: Coordinate Attention for Efficient Mobile Network Design, CVPR 2021, arXiv 2103.02907
      h = mean_W x (B, C, H, 1), w = mean_H x (B, C, 1, W); both, one after the other along the length, through
      t = act(BN(conv1x1 C->m)); y = x * sigmoid(F_h t_h) * sigmoid(F_w t_w): a channel gate that knows row and column
bam   Park, Woo, Lee, Kweon: BAM: Bottleneck Attention Module, BMVC 2018, arXiv 1807.06514
      c = W2 relu(BN(W1 mean_HW x)) (B, C, 1, 1), p = dilated 3x3 convolutions on C/r channels (B, 1, H, W),
      y = x * (1 + sigmoid(c + p)): both questions at once; the 1 keeps the features
triplet  Misra, Nalamada, Arasanipalai, Hou: Rotate to Attend, WACV 2021, arXiv 2010.03045
      for each axis d of (H, W, C): pool x over d to [max; mean], conv k x k 2->1, BN, sigmoid: a gate over the other
      two axes; y = x * (mean of the three gates)
"""

from typing import Literal

import torch
from torch import Tensor, nn

from nets.attention.layers import AttentionBlock, BatchNorm2d, Maps, gate_maps, narrow
from nets.attention.options import Count, Odd
from nets.attention.registry import register


class CBAMChannel(nn.Module):
    """x -> channel gate `(B, C, 1, 1)` from mean and maximum."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = narrow(channels, reduction)
        self.fc1 = nn.Conv2d(channels, hidden, 1, bias=False)
        self.relu = nn.ReLU()
        self.fc2 = nn.Conv2d(hidden, channels, 1, bias=False)

    def _shared(self, pooled: Tensor) -> Tensor:
        return self.fc2(self.relu(self.fc1(pooled)))

    def forward(self, x: Tensor) -> Tensor:
        mean, peak = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        return (self._shared(mean) + self._shared(peak)).sigmoid()


class CBAMSpatial(nn.Module):
    """x -> spatial gate `(B, 1, H, W)` from mean and maximum over the channels."""

    def __init__(self, kernel_size: int, norm: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)
        self.bn = BatchNorm2d(1) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        planes = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return self.bn(self.conv1(planes)).sigmoid()


@register("cbam", family="mixed", paper="Woo, Park, Lee, Kweon: CBAM, ECCV 2018, arXiv 1807.06521")
class CBAM(AttentionBlock):
    """Channel gate, then spatial gate. `norm`: batch normalization after the spatial convolution, as in timm."""

    def __init__(
        self,
        channels: int,
        *,
        reduction: Count = 8,
        kernel_size: Literal[3, 7] = 7,
        norm: bool = False,
    ) -> None:
        super().__init__()
        self.channelattention = CBAMChannel(channels, reduction)
        self.spatialattention = CBAMSpatial(kernel_size, norm)

    def _gates(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Channel gate, x behind it, spatial gate."""
        channel = self.channelattention(x)
        gated = x * channel
        return channel, gated, self.spatialattention(gated)

    def forward(self, x: Tensor) -> Tensor:
        _, gated, spatial = self._gates(x)
        return gated * spatial

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> Maps:
        channel, _, spatial = self._gates(x)
        return {"channel": channel.flatten(1), "spatial": spatial[:, 0]}


@register(
    "ca", family="mixed", paper="Hou, Zhou, Feng: Coordinate Attention, CVPR 2021, arXiv 2103.02907"
)
class CoordinateAttention(AttentionBlock):
    """Coordinate attention. `min_channels`: smallest hidden width. `bias`: biases in all three convolutions."""

    def __init__(
        self,
        channels: int,
        *,
        reduction: Count = 16,
        min_channels: Count = 1,
        activation: Literal["relu", "hardswish"] = "relu",
        bias: bool = False,
    ) -> None:
        super().__init__()
        hidden = max(channels // reduction, min_channels)
        self.conv_1x1 = nn.Conv2d(channels, hidden, 1, bias=bias)
        self.bn = BatchNorm2d(hidden)
        self.activation = nn.ReLU() if activation == "relu" else nn.Hardswish()
        self.F_h = nn.Conv2d(hidden, channels, 1, bias=bias)
        self.F_w = nn.Conv2d(hidden, channels, 1, bias=bias)
        self.zero_gradient = (
            ("conv_1x1.bias",) if bias else ()
        )  # the batch normalization subtracts it

    def _gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Gates of the rows (B, C, H, 1) and of the columns (B, C, 1, W)."""
        height, width = x.shape[2:]
        lines = torch.cat(
            [x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)], 2
        )  # (B, C, H + W, 1)
        hidden = self.activation(self.bn(self.conv_1x1(lines)))
        rows, columns = hidden.split([height, width], 2)
        return self.F_h(rows).sigmoid(), self.F_w(columns).sigmoid().transpose(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self._gates(x)
        return x * rows * columns

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> Maps:
        rows, columns = self._gates(x)
        return gate_maps(rows * columns)


@register("bam", family="mixed", paper="Park, Woo, Lee, Kweon: BAM, BMVC 2018, arXiv 1807.06514")
class BAM(AttentionBlock):
    """Channel and spatial branch side by side. `combine`: sum as in the paper, product as in its authors' code."""

    def __init__(
        self,
        channels: int,
        *,
        reduction: Count = 16,
        dilation: Count = 4,
        num_layers: Count = 2,
        combine: Literal["sum", "product"] = "sum",
    ) -> None:
        super().__init__()
        hidden = narrow(channels, reduction)
        self.channel = nn.Sequential(
            *_conv_bn_relu(channels, hidden), nn.Conv2d(hidden, channels, 1)
        )
        dilated = [
            layer for _ in range(num_layers) for layer in _conv_bn_relu(hidden, hidden, 3, dilation)
        ]
        self.spatial = nn.Sequential(
            *_conv_bn_relu(channels, hidden), *dilated, nn.Conv2d(hidden, 1, 1)
        )
        self.product = combine == "product"
        # biases in front of a batch normalization, which subtracts them
        self.zero_gradient = (
            "channel.0.bias",
            *(f"spatial.{3 * layer}.bias" for layer in range(num_layers + 1)),
        )

    def _gate(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in 1..2."""
        channel, spatial = self.channel(x.mean((2, 3), keepdim=True)), self.spatial(x)
        return 1 + (channel * spatial if self.product else channel + spatial).sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self._gate(x)

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> Maps:
        return gate_maps(self._gate(x))


def _conv_bn_relu(inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> list[nn.Module]:
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation)
    return [conv, BatchNorm2d(outputs), nn.ReLU()]


@register(
    "triplet", family="mixed", paper="Misra et al.: Rotate to Attend, WACV 2021, arXiv 2010.03045"
)
class Triplet(AttentionBlock):
    """Triplet attention, pooling along each axis directly instead of permuting x. `spatial`: the H x W gate as well."""

    def __init__(self, channels: int, *, kernel_size: Odd = 7, spatial: bool = True) -> None:
        super().__init__()
        self.pooled_axes = (2, 3, 1) if spatial else (2, 3)
        self.gates = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False),
                BatchNorm2d(1),
                nn.Sigmoid(),
            )
            for _ in self.pooled_axes
        )

    def _gates(self, x: Tensor) -> list[Tensor]:
        """One gate an axis, of size 1 along it."""
        gates = []
        for axis, layers in zip(self.pooled_axes, self.gates, strict=True):
            planes = torch.stack(
                [x.amax(axis), x.mean(axis)], 1
            )  # over H: (B, 2, C, W); over W: (B, 2, C, H)
            if axis == 3:  # the paper's kernel lies on the plane (H, C), not (C, H)
                gate = layers(planes.transpose(2, 3)).transpose(2, 3)
            else:
                gate = layers(planes)
            gates.append(gate.squeeze(1).unsqueeze(axis))
        return gates

    def forward(self, x: Tensor) -> Tensor:
        return x * (sum(self._gates(x)) / len(self.gates))

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> Maps:
        return gate_maps((sum(self._gates(x)) / len(self.gates)).expand_as(x))  # type: ignore[union-attr]
