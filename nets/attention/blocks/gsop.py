"""Global second-order pooling: gates from the covariances of the features instead of their means.

Gao, Xie, Wang, Li: Global Second-order Pooling Convolutional Networks, CVPR 2019,
arXiv 1811.12006

channel: how the channels vary together
    z = relu(BN(W relu(x) + b))              (B, d, N), then centered over N
    S = z z^T / N                            (B, d, d)
    g = sigmoid(W' rows(BN(S)))              (B, C, 1, 1)
    y = x * g                                (B, C, H, W)

position: how the positions vary together
    z as above, average-pooled to 8 x 8 positions, centered over the d channels
    S                                        (B, 64, 64)
    g = sigmoid(W' relu(rows(BN(S))))        (B, 1, 8, 8), resized to H x W
    y = x * g                                (B, C, H, W)

both: y = x * g_channel + x * g_position

rows is a grouped convolution that maps every row of S to `expand` values; its BN takes the rows as
channels.
"""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from nets.attention.base import AttentionBlock, AttentionMaps
from nets.attention.layers import BatchNorm2d, no_autocast, upcast
from nets.attention.options import SmallInt
from nets.attention.registry import register

GRID = 8  # side of the pooled grid in position mode


class CovarianceGate(nn.Module):
    """Gate from covariances: `(B, C, 1, 1)`, or with `positions` `(B, 1, H, W)`."""

    def __init__(
        self, channels: int, dim: int, expand: int, pre_relu: bool, positions: bool
    ) -> None:
        super().__init__()
        rows = GRID * GRID if positions else dim
        outputs = GRID * GRID if positions else channels
        self.positions = positions
        self.pre = nn.ReLU() if pre_relu else nn.Identity()
        self.reduce = nn.Conv2d(channels, dim, 1)
        self.norm = BatchNorm2d(dim)
        self.row_norm = BatchNorm2d(rows)
        self.row = nn.Conv2d(rows, expand * rows, (rows, 1), groups=rows)
        self.expand = nn.Conv2d(expand * rows, outputs, 1)

    def covariance(self, x: Tensor) -> Tensor:
        """The matrix S, float32."""
        z = F.relu(self.norm(self.reduce(self.pre(x))))
        if self.positions:
            z = F.adaptive_avg_pool2d(z, GRID).flatten(2).transpose(1, 2)  # (B, 64, d)
        z = upcast(z.flatten(2))
        z = z - z.mean(2, keepdim=True)
        with no_autocast(z):
            return z @ z.transpose(1, 2) / z.shape[2]

    def forward(self, x: Tensor) -> Tensor:
        # float32 under autocast, too: a covariance may pass 65504
        covariance = self.covariance(x).to(self.row_norm.weight.dtype)
        rows = self.row(self.row_norm(covariance[..., None]))
        if not self.positions:
            return self.expand(rows).sigmoid()
        gate = self.expand(F.relu(rows)).sigmoid().view(-1, 1, GRID, GRID)
        return F.adaptive_avg_pool2d(gate, (x.shape[2], x.shape[3]))


@register("gsop", family="channel", paper="Gao, Xie, Wang, Li: GSoP, CVPR 2019, arXiv 1811.12006")
class GSoP(AttentionBlock):
    """Global second-order pooling.

    Args:
        channels: C.
        dim: the width d, 2 to 1024; 128 as in the authors' code.
        expand: outputs of the row convolution per row, >= 1; 4 as in the authors' code.
        pre_relu: ReLU before the first convolution.
        mode: channel, position or both.

    Traps:
        - With mode position, a small map has fewer positions than the grid, which then repeats
          them.
        - The largest of the channel gates: its row convolution has 4 d^2 weights.
    """

    def __init__(
        self,
        channels: int,
        *,
        dim: Annotated[int, Field(ge=2, le=1024)] = 128,
        expand: SmallInt = 4,
        pre_relu: bool = True,
        mode: Literal["channel", "position", "both"] = "channel",
    ) -> None:
        super().__init__()
        # the batch normalization after `reduce` cancels its bias
        cancelled = []
        self.channel = self.position = None
        if mode != "position":
            self.channel = CovarianceGate(channels, dim, expand, pre_relu, positions=False)
            cancelled.append("channel.reduce.bias")
        if mode != "channel":
            self.position = CovarianceGate(channels, dim, expand, pre_relu, positions=True)
            cancelled.append("position.reduce.bias")
        self.zero_gradient = tuple(cancelled)

    def forward(self, x: Tensor) -> Tensor:
        gates = [branch(x) for branch in (self.channel, self.position) if branch is not None]
        return x * gates[0] if len(gates) == 1 else x * gates[0] + x * gates[1]

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        maps: AttentionMaps = {}
        if self.channel is not None:
            maps["channel"] = self.channel(x).flatten(1)
        if self.position is not None:
            maps["spatial"] = self.position(x)[:, 0]
        return maps
