"""Second-order pooling: gates from the covariances of the features instead of their means.

gsop  Gao, Xie, Wang, Li: Global Second-order Pooling Convolutional Networks, CVPR 2019, arXiv 1811.12006

channel:   z = relu(BN(W relu(x) + b)) (B, d, N), centered over N; S = z z^T / N (B, d, d): how channels vary together
           BN with the d rows as channels, a row-wise convolution (kernel (d, 1), d groups, `expand` outputs each):
           (B, expand * d, 1, 1), then 1x1 and sigmoid: g (B, C, 1, 1); y = x * g
position:  z as above, average-pooled to 8 x 8; S (B, 64, 64): how positions vary together across the d channels
           (centered over them); the same layers with a ReLU in between: g (B, 1, 8, 8), resized to H x W; y = x * g
both:      y = x * g_channel + x * g_position
"""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from nets.attention.layers import AttentionBlock, BatchNorm2d, Maps, full, no_autocast
from nets.attention.options import Count
from nets.attention.registry import register

GRID = 8  # side of the position branch's grid


class SecondOrder(nn.Module):
    """Covariance gate. `positions`: of the 8 x 8 positions, else of the channels."""

    def __init__(
        self, channels: int, dim: int, expand: int, pre_relu: bool, positions: bool
    ) -> None:
        super().__init__()
        rows, outputs = (GRID * GRID, GRID * GRID) if positions else (dim, channels)
        self.positions = positions
        self.pre = nn.ReLU() if pre_relu else nn.Identity()
        self.reduce = nn.Conv2d(channels, dim, 1)
        self.norm = BatchNorm2d(dim)
        self.row_norm = BatchNorm2d(rows)
        self.row = nn.Conv2d(rows, expand * rows, (rows, 1), groups=rows)
        self.expand = nn.Conv2d(expand * rows, outputs, 1)

    def covariance(self, x: Tensor) -> Tensor:
        """(B, d, d) over the positions, or (B, 64, 64) over the channels, float32."""
        z = F.relu(self.norm(self.reduce(self.pre(x))))
        if self.positions:
            z = F.adaptive_avg_pool2d(z, GRID).flatten(2).transpose(1, 2)  # (B, 64, d)
        z = full(z.flatten(2))
        z = z - z.mean(2, keepdim=True)
        with no_autocast(z):
            return z @ z.transpose(1, 2) / z.shape[2]

    def forward(self, x: Tensor) -> Tensor:
        """X -> gate (B, C, 1, 1), or (B, 1, H, W)."""
        covariance = self.covariance(x).to(
            self.row_norm.weight.dtype
        )  # float32 under autocast: it may pass 65504
        rows = self.row(self.row_norm(covariance[..., None]))
        gate = self.expand(F.relu(rows) if self.positions else rows).sigmoid()
        if self.positions:
            return F.adaptive_avg_pool2d(gate.view(-1, 1, GRID, GRID), (x.shape[2], x.shape[3]))
        return gate


@register("gsop", family="channel", paper="Gao, Xie, Wang, Li: GSoP, CVPR 2019, arXiv 1811.12006")
class GSoP(AttentionBlock):
    """Global second-order pooling. `dim`: width d of the covariance. `expand`: outputs of the row convolution a row."""

    def __init__(
        self,
        channels: int,
        *,
        dim: Annotated[int, Field(ge=2)] = 128,
        expand: Count = 4,
        pre_relu: bool = True,
        mode: Literal["channel", "position", "both"] = "channel",
    ) -> None:
        super().__init__()
        self.channel = (
            SecondOrder(channels, dim, expand, pre_relu, False) if mode != "position" else None
        )
        self.position = (
            SecondOrder(channels, dim, expand, pre_relu, True) if mode != "channel" else None
        )
        branches = {"channel": self.channel, "position": self.position}
        self.zero_gradient = tuple(
            f"{name}.reduce.bias" for name, branch in branches.items() if branch is not None
        )

    def forward(self, x: Tensor) -> Tensor:
        gates = [branch(x) for branch in (self.channel, self.position) if branch is not None]
        return x * gates[0] if len(gates) == 1 else x * gates[0] + x * gates[1]

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> Maps:
        maps = {}
        if self.channel is not None:
            maps["channel"] = self.channel(x).flatten(1)
        if self.position is not None:
            maps["spatial"] = self.position(x)[:, 0]
        return maps
