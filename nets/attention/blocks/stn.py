"""Spatial transformer: a learned warp of the feature map.

Jaderberg, Simonyan, Zisserman, Kavukcuoglu: Spatial Transformer Networks, NIPS 2015,
arXiv 1506.02025

    theta = loc(x)                           (B, 2, 3)
    T(x) at p = x at theta [p; 1]            bilinear, coordinates run from -1 to 1 over the map
    replace: y = T(x)                        (B, C, H, W)
    blend:   y = x + g (T(x) - x)            g is one learned number that starts at 1

The paper leaves loc open. Here: conv1x1, BN, relu, conv3x3 of stride 2, BN, relu, average pool to
grid x grid, linear, relu, linear; the last layer starts as theta = identity.

Sampling at the identity returns x only to 1e-6, as coordinates are rounded. The block therefore
computes y = x + g (T_theta(x) - T_identity(x)): equal to the formula up to that rounding, bit-equal
to x at the start, with the full gradient for theta.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.attention.base import AttentionBlock, AttentionMaps
from nets.attention.layers import conv_norm_act, no_autocast, upcast
from nets.attention.options import PositiveInt, SmallInt
from nets.attention.registry import register

IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))


@register(
    "stn",
    family="spatial",
    paper="Jaderberg et al.: Spatial Transformer Networks, NIPS 2015, arXiv 1506.02025",
)
class STN(AttentionBlock):
    """Spatial transformer; `hidden` and `grid` are this project's choices.

    Args:
        channels: C.
        hidden: width of loc, >= 1.
        grid: side of loc's pooled map, >= 1.
        transform: affine, or attention: one scale and a shift.
        mode: replace or blend, see above.
        padding_mode: what lies outside the map, its border or zeros.

    Traps:
        - A warp moves features away from the cell in which a detection head decodes them: expect
          worse boxes where theta leaves the identity.
        - A step so large that every sample falls off the map is final: all gradients are zero out
          there.
    """

    identity_at_start = True

    def __init__(
        self,
        channels: int,
        *,
        hidden: PositiveInt = 32,
        grid: SmallInt = 4,
        transform: Literal["affine", "attention"] = "affine",
        mode: Literal["replace", "blend"] = "replace",
        padding_mode: Literal["border", "zeros"] = "border",
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *conv_norm_act(channels, hidden),
            *conv_norm_act(hidden, hidden, 3, stride=2),
            nn.AdaptiveAvgPool2d(grid),
        )
        start = [*IDENTITY[0], *IDENTITY[1]] if transform == "affine" else [1.0, 0.0, 0.0]
        last = nn.Linear(hidden, len(start))
        nn.init.zeros_(last.weight)
        last.bias = nn.Parameter(torch.tensor(start))
        self.regress = nn.Sequential(nn.Linear(hidden * grid * grid, hidden), nn.ReLU(), last)
        self.blend = nn.Parameter(torch.ones(())) if mode == "blend" else None
        self.affine = transform == "affine"
        self.padding_mode = padding_mode

    def theta(self, x: Tensor) -> Tensor:
        """The warp (B, 2, 3), float32; attention: [[s, 0, tx], [0, s, ty]] from s, tx, ty."""
        numbers = upcast(self.regress(self.features(x).flatten(1)))
        if self.affine:
            return numbers.view(-1, 2, 3)
        scale, shift = numbers[:, :1], numbers[:, 1:]
        return torch.cat([torch.diag_embed(scale.expand(-1, 2)), shift[:, :, None]], 2)

    def sample(self, x: Tensor, theta: Tensor) -> Tensor:
        """T_theta(x), float32."""
        with no_autocast(x):
            positions = _positions(theta, x)
            return F.grid_sample(
                upcast(x), positions, padding_mode=self.padding_mode, align_corners=False
            )

    def forward(self, x: Tensor) -> Tensor:
        theta = self.theta(x)
        change = self.sample(x, theta) - self.sample(x, _identity(theta))
        if self.blend is not None:
            change = self.blend * change
        return x + change.to(x.dtype)

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        theta = self.theta(x)
        with no_autocast(x):
            shifts = _positions(theta - _identity(theta), x)
        height, width = x.shape[2:]
        sides = torch.tensor((width, height), device=x.device)  # a coordinate spans -1..1 per side
        return {"displacement": (shifts * sides / 2).norm(dim=3)}


def _positions(theta: Tensor, x: Tensor) -> Tensor:
    """Where each cell of x reads from, (B, H, W, 2): `F.affine_grid`, which ncnn does not know."""
    rows, columns = (
        (2 * torch.arange(side, dtype=theta.dtype, device=x.device) + 1) / side - 1
        for side in x.shape[2:]
    )
    down, across = torch.meshgrid(rows, columns, indexing="ij")
    cells = torch.stack([across, down, torch.ones_like(down)], 2)
    return F.linear(theta, cells.flatten(0, 1)).transpose(1, 2).unflatten(1, tuple(down.shape))


def _identity(theta: Tensor) -> Tensor:
    identity = torch.tensor([IDENTITY], dtype=theta.dtype, device=theta.device)
    return 0 * theta.detach() + identity  # OpenCV 4 cannot expand a constant over the batch
