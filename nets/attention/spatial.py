"""A learnt warp of the feature map.

stn  Jaderberg, Simonyan, Zisserman, Kavukcuoglu: Spatial Transformer Networks, NIPS 2015, arXiv 1506.02025

theta = loc(x) (B, 2, 3); T(x): output position p is the bilinear sample of x at theta [p; 1], coordinates -1..1 over
the map (`align_corners=False`). loc, which the paper leaves open: conv1x1 C->32, BN, relu, conv3x3 stride 2, BN, relu,
average pool to 4 x 4, linear, relu, linear; the last starts as theta = identity.
replace: y = T(x);  blend: y = x + g (T(x) - x), g one learnt number that starts at 1.

Sampling at the identity returns x only to 1e-6, as its coordinates are rounded. So the block computes
y = x + g (T_theta(x) - T_identity(x)), with the same sampler twice: equal to the formula to that rounding, and
bit-equal to x at start, while theta receives its full gradient.
A warp moves features away from the cell a detection head decodes them in: expect worse boxes where theta leaves the
identity. And a step so large that every sample falls off the map is final: out there all gradients are zero.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.attention.layers import AttentionBlock, BatchNorm2d, Maps, full, no_autocast
from nets.attention.options import Count
from nets.attention.registry import register

IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))


@register(
    "stn",
    family="spatial",
    paper="Jaderberg et al.: Spatial Transformer Networks, NIPS 2015, arXiv 1506.02025",
)
class STN(AttentionBlock):
    """Spatial transformer. `transform`: affine, or attention (one scale and a shift). `grid`: side of loc's pooling."""

    identity_at_start = True

    def __init__(
        self,
        channels: int,
        *,
        hidden: Count = 32,
        grid: Count = 4,
        transform: Literal["affine", "attention"] = "affine",
        mode: Literal["replace", "blend"] = "replace",
        padding_mode: Literal["border", "zeros"] = "border",
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False),
            BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, stride=2, padding=1, bias=False),
            BatchNorm2d(hidden),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(grid),
        )
        start = (
            [1.0, 0.0, 0.0]
            if transform == "attention"
            else [value for row in IDENTITY for value in row]
        )
        last = nn.Linear(hidden, len(start))
        nn.init.zeros_(last.weight)
        last.bias = nn.Parameter(torch.tensor(start))
        self.regress = nn.Sequential(nn.Linear(hidden * grid * grid, hidden), nn.ReLU(), last)
        self.blend = nn.Parameter(torch.ones(())) if mode == "blend" else None
        self.affine = transform == "affine"
        self.padding_mode = padding_mode

    def theta(self, x: Tensor) -> Tensor:
        """The warp (B, 2, 3), float32; attention: [[s, 0, tx], [0, s, ty]] from s, tx, ty."""
        numbers = full(self.regress(self.features(x).flatten(1)))
        if self.affine:
            return numbers.view(-1, 2, 3)
        scale, shift = numbers[:, :1], numbers[:, 1:]
        return torch.cat([torch.diag_embed(scale.expand(-1, 2)), shift[:, :, None]], 2)

    def sample(self, x: Tensor, theta: Tensor) -> Tensor:
        """T_theta(x), float32."""
        with no_autocast(x):
            places = F.affine_grid(theta, list(x.shape), align_corners=False)
            return F.grid_sample(
                full(x), places, padding_mode=self.padding_mode, align_corners=False
            )

    def forward(self, x: Tensor) -> Tensor:
        theta = self.theta(x)
        moved = self.sample(x, theta) - self.sample(x, _identity(theta))
        return x + (moved if self.blend is None else self.blend * moved).to(x.dtype)

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> Maps:
        theta = self.theta(x)
        with no_autocast(x):
            moved = F.affine_grid(theta - _identity(theta), list(x.shape), align_corners=False)
        sides = torch.tensor(
            x.shape[:1:-1], device=x.device
        )  # (W, H): a coordinate runs from -1 to 1 over a side
        return {"displacement": (moved * sides / 2).norm(dim=3)}


def _identity(theta: Tensor) -> Tensor:
    return torch.tensor(IDENTITY, dtype=theta.dtype, device=theta.device).expand_as(theta)
