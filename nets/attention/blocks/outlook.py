"""Outlook attention: each position mixes the values of its window, by weights from itself alone.

Yuan, Hou, Jiang, Feng, Yan: VOLO: Vision Outlooker for Visual Recognition, TPAMI 2023,
arXiv 2106.13112

    v = W_v x                                (B, C, H, W), no bias; h heads of d = C / h channels
    A_j = softmax over q of (W_a x_j + b_a) / sqrt(d)       (h, k^2, k^2) for each position j
    u_j[p] = sum over q of A_j[p, q] v[j + q]               p, q: positions in the k x k window at j
    y_i = x_i + W_o(sum over j of u_j[i - j])               windows overlap; zeros around the map

There are no keys: no position is compared with another. Zeros around the map have weight.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.attention.base import AttentionMaps, ResidualAttention
from nets.attention.layers import check_heads, default_heads, flat_index, no_autocast, upcast
from nets.attention.options import OddInt, PositiveInt
from nets.attention.registry import register


@register(
    "outlook", family="self_attention", paper="Yuan et al.: VOLO, TPAMI 2023, arXiv 2106.13112"
)
class Outlook(ResidualAttention):
    """Outlook attention; its map is the mean of the heads, summed over the windows of the point.

    Args:
        channels: C.
        heads: the number h, divides C; None: the largest divisor of C that is at most C // 32.
        kernel_size: odd side k of the windows; 3 as in the paper.
        residual: add x.

    Traps:
        - There are no keys: the weights of a window come from its center alone.
        - The sum over up to k^2 windows makes a fresh branch 0.7 of its input's size; zeros outside
          the map are not masked.
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: PositiveInt | None = None,
        kernel_size: OddInt = 3,
        residual: bool = True,
    ) -> None:
        super().__init__(residual)
        self.heads = check_heads("outlook.heads", heads or default_heads(channels, 32), channels)
        self.scale = (channels // self.heads) ** -0.5
        self.kernel_size = kernel_size
        self.value = nn.Conv2d(channels, channels, 1, bias=False)
        self.weights = nn.Conv2d(channels, self.heads * kernel_size**4, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def _weights(self, x: Tensor) -> Tensor:
        """A, (B, h, N, k^2, k^2), float32."""
        positions = self.kernel_size**2
        scores = upcast(self.weights(x)).flatten(2).transpose(1, 2)
        scores = scores.unflatten(2, (self.heads, positions, positions)).transpose(1, 2)
        return (self.scale * scores).softmax(4)

    def attended(self, x: Tensor) -> Tensor:
        k, value = self.kernel_size, self.value(x)
        windows = F.unfold(value, k, padding=k // 2).unflatten(1, (self.heads, -1, k * k))
        weights = self._weights(x).transpose(3, 4)
        with no_autocast(x):
            mixed = upcast(windows).permute(0, 1, 4, 2, 3) @ weights  # (B, h, N, d, k^2)
        mixed = mixed.to(value.dtype).permute(0, 1, 3, 4, 2).flatten(1, 3)
        return self.out(_add_windows(mixed, k, x.shape[2:]))

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        """`query`: what the output at `point` sums, weights of up to k^2 windows, each of sum 1."""
        height, width = x.shape[2:]
        row, column = divmod(flat_index(point, (height, width)), width)
        k, margin = self.kernel_size, self.kernel_size // 2
        weights = self._weights(x).mean(1).unflatten(1, (height, width))
        reads = F.pad(torch.zeros_like(weights[..., 0, 0]), [margin] * 4)
        for position in range(k * k):
            top, left = row + margin - position // k, column + margin - position % k
            if 0 <= top < height and 0 <= left < width:
                window = weights[:, top, left, position].unflatten(1, (k, k))
                reads[:, top : top + k, left : left + k] += window
        return {"query": reads[:, margin : margin + height, margin : margin + width]}


def _add_windows(windows: Tensor, kernel_size: int, size: Sequence[int]) -> Tensor:
    """Add up the k x k windows (B, C * k^2, N) around all positions: (B, C, H, W)."""
    margin = kernel_size // 2
    if not torch.compiler.is_exporting():
        return F.fold(windows, tuple(size), kernel_size, padding=margin)
    # few runtimes know Col2Im: a convolution takes one position of each window, slower to train
    positions = kernel_size**2
    pick = (
        torch.eye(positions, dtype=windows.dtype)
        .flip(0)
        .view(1, positions, kernel_size, kernel_size)
    )
    maps = windows.unflatten(1, (-1, positions)).flatten(0, 1).unflatten(2, size)
    return F.conv2d(maps, pick, padding=margin).unflatten(0, (windows.shape[0], -1)).squeeze(2)
