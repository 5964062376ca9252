"""Gated channel transformation: channels compete, or cooperate, by their norms.

Yang, Zhu, Wu, Yang: Gated Channel Transformation for Visual Recognition, CVPR 2020,
arXiv 1909.11519

    l2: e_c = alpha_c sqrt(sum over H, W of x^2 + eps)    n = sqrt(mean over c of e_c^2 + eps)
    l1: e_c = alpha_c (sum over H, W of |x|)              n = mean over c of |e_c| + eps
    g_c = 1 + tanh(gamma_c e_c / n + beta_c)              (B, C)
    y = x * g                                             (B, C, H, W)

alpha starts at 1, gamma and beta at 0: y = x.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from nets.attention.base import ChannelGate
from nets.attention.layers import upcast
from nets.attention.registry import register


@register("gct", family="channel", paper="Yang, Zhu, Wu, Yang: GCT, CVPR 2020, arXiv 1909.11519")
class GatedChannelTransformation(ChannelGate):
    """Gated channel transformation.

    Args:
        channels: C.
        mode: l2 (paper) or l1. The authors' l1 leaves out the absolute value after a ReLU.
        eps: of the formulas above, 1e-12 to 1; 1e-5 as in the authors' code.

    Traps:
        - e sums over the positions and does not average; only the ratio e / n is free of the size.
        - Weight decay on alpha, gamma and beta pulls the gate to 1.
    """

    identity_at_start = True

    def __init__(
        self,
        channels: int,
        *,
        mode: Literal["l2", "l1"] = "l2",
        eps: Annotated[float, Field(ge=1e-12, le=1)] = 1e-5,
    ) -> None:
        super().__init__()
        # vectors, reshaped in use: the optimizer decays what has two axes
        self.alpha = nn.Parameter(torch.ones(channels))
        self.gamma = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))
        self.squared = mode == "l2"
        self.eps = eps

    def gate(self, x: Tensor) -> Tensor:
        alpha, gamma, beta = (p.view(-1, 1, 1) for p in (self.alpha, self.gamma, self.beta))
        wide = upcast(x)  # the sum of squares passes 65504
        if self.squared:
            embedding = alpha * (wide.square().sum((2, 3), keepdim=True) + self.eps).sqrt()
            norm = (embedding.square().mean(1, keepdim=True) + self.eps).sqrt()
        else:
            embedding = alpha * wide.abs().sum((2, 3), keepdim=True)
            norm = embedding.abs().mean(1, keepdim=True) + self.eps
        return (1 + (gamma * embedding / norm + beta).tanh()).to(x.dtype)
