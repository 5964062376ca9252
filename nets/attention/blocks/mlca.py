"""Mixed local channel attention: ECA over the whole map and over each cell of a coarse grid.

Wan, Lu, Shen et al.: Mixed Local Channel Attention for Object Detection, Engineering Applications
of Artificial Intelligence 2023, not on arXiv

    p = adaptive average pooling of x to n x n                   (B, C, n, n)
    l = conv1d_k(p, cell after cell, each with its C channels)   (B, n n C)
    g = conv1d_k(mean over the cells of p)                       (B, C)
    a = w sigmoid(l) + (1 - w) sigmoid(g)                        (B, C, n, n)
    y = x * adaptive average pooling of a to H x W               (B, C, H, W)

The convolutions have one kernel each and no bias; k grows with log C as in eca.
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from nets.attention.base import FeatureGate
from nets.attention.blocks.eca import KernelBase, KernelShift, kernel_width
from nets.attention.options import SmallInt
from nets.attention.registry import register


@register(
    "mlca",
    family="mixed",
    paper="Wan et al.: MLCA, Engineering Applications of AI 2023, not on arXiv",
)
class MixedLocalChannelAttention(FeatureGate):
    """Mixed local channel attention; the defaults are those of the authors' code.

    Args:
        channels: C.
        size: side n of the grid, >= 1.
        gamma: of the rule for k, see eca.
        b: of the rule for k, see eca.
        local_weight: the w of the formula, 0 to 1.

    Traps:
        - The last channels of a cell and the first of the next are neighbors of the local
          convolution.
        - The mean of p is the mean of x only where n divides H and W.
    """

    def __init__(
        self,
        channels: int,
        *,
        size: SmallInt = 5,
        gamma: KernelBase = 2,
        b: KernelShift = 1,
        local_weight: Annotated[float, Field(ge=0, le=1)] = 0.5,
    ) -> None:
        super().__init__()
        width = kernel_width(channels, gamma, b)
        self.local = nn.Conv1d(1, 1, width, padding=width // 2, bias=False)
        self.whole = nn.Conv1d(1, 1, width, padding=width // 2, bias=False)
        self.size = size
        self.local_weight = local_weight
        if local_weight in (0, 1):
            self.zero_gradient = ("local.weight" if local_weight == 0 else "whole.weight",)

    def gate(self, x: Tensor) -> Tensor:
        cells = F.adaptive_avg_pool2d(x, self.size).flatten(2).transpose(1, 2)  # (B, n n, C)
        local = self.local(cells.flatten(1).unsqueeze(1)).reshape_as(cells)
        whole = self.whole(cells.mean(1, keepdim=True))
        share = self.local_weight
        gates = share * local.sigmoid() + (1 - share) * whole.sigmoid()
        grid = gates.transpose(1, 2).unflatten(2, (self.size, self.size))
        return F.adaptive_avg_pool2d(grid, (x.shape[2], x.shape[3]))
