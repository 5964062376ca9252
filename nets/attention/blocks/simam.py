"""SimAM: every element is weighted by how far it lies from its channel's mean; no parameters.

Yang, Zhang, Li, Xie: SimAM: A Simple, Parameter-Free Attention Module, ICML 2021, not on arXiv

    d = (x - mean over H, W of x)^2          (B, C, H, W)
    v = sum over H, W of d / (N - 1)         (B, C, 1, 1)
    g = sigmoid(d / (4 (v + lambda)) + 1/2)  (B, C, H, W)
    y = x * g                                (B, C, H, W)

On a map of one position, v = 0.
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from nets.attention.base import FeatureGate
from nets.attention.layers import spatial_variance, upcast
from nets.attention.registry import register


@register("simam", family="mixed", paper="Yang, Zhang, Li, Xie: SimAM, ICML 2021, not on arXiv")
class SimAM(FeatureGate):
    """SimAM.

    Args:
        channels: C; nothing depends on it.
        e_lambda: the lambda of the formula, 1e-8 to 1; 1e-4 as in the paper.

    Traps:
        - The gate never falls below sigmoid(1/2) = 0.62, and grows on both sides of the mean:
          features far below it are kept as much as features far above.
        - Nothing in it learns.
    """

    def __init__(
        self, channels: int, *, e_lambda: Annotated[float, Field(ge=1e-8, le=1)] = 1e-4
    ) -> None:
        super().__init__()
        self.e_lambda = e_lambda

    def gate(self, x: Tensor) -> Tensor:
        wide = upcast(x)  # the squares pass 65504
        squares = (wide - wide.mean((2, 3), keepdim=True)).square()
        scores = squares * (0.25 / (spatial_variance(squares) + self.e_lambda)) + 0.5
        return scores.sigmoid().to(x.dtype)
