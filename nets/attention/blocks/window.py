"""Window attention: attention inside windows of w x w positions, optionally shifted.

Liu, Lin, Cao, Hu, Wei, Zhang, Lin, Guo: Swin Transformer: Hierarchical Vision Transformer using
Shifted Windows, ICCV 2021, arXiv 2103.14030 (W-MSA and SW-MSA)

    q, k, v = conv1x1(x)                     with bias, h heads of d = C / h channels
    A_ij = softmax(q_i . k_j / sqrt(d) + b[y_i - y_j, x_i - x_j])    (B, windows, h, w^2, w^2)
    y = x + conv1x1(A v)                     (B, C, H, W), with bias

b is a learned table of (2 w - 1)^2 relative offsets for each head. The map is padded at the bottom
and the right to multiples of w. With a shift s, it is first rolled up and left by s along the sides
longer than w; what the roll brings together from opposite sides stays apart.

Padding has no weight here; in Swin's code it has (mask=false), each key being the bias of k. The
norms and the MLP around the paper's layer are left out.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.attention.base import AttentionMaps, ResidualAttention
from nets.attention.layers import (
    check_heads,
    default_heads,
    dot_product_weights,
    flat_index,
    scaled_dot_product,
    upcast,
)
from nets.attention.options import PositiveInt, SmallInt, SmallOrZero
from nets.attention.registry import register
from nets.attention.windows import (
    MASKED,
    either,
    from_windows,
    locate,
    outside,
    pad_to_multiples,
    to_windows,
)
from utils.core.errors import UserError


@register("window", family="self_attention", paper="Liu et al.: Swin, ICCV 2021, arXiv 2103.14030")
class Window(ResidualAttention):
    """Window attention; its map is the mean of the heads, zero outside the window of the point.

    Args:
        channels: C.
        heads: the number h, divides C; None: the largest divisor of C that is at most C // 32.
        window: side w, >= 1; 7 as in the paper.
        shift: s, 0 to w - 1; the paper alternates 0 and w // 2.
        mask: give padding no weight.
        residual: add x.

    Traps:
        - A block never links two windows: use shift 0 at one site and 3 at another.
        - timm rolls before it pads, which differs where the window does not divide the map.
    """

    index: Tensor

    def __init__(
        self,
        channels: int,
        *,
        heads: PositiveInt | None = None,
        window: SmallInt = 7,
        shift: SmallOrZero = 0,
        mask: bool = True,
        residual: bool = True,
    ) -> None:
        super().__init__(residual)
        if shift >= window:
            raise UserError(f"window.shift: expected 0 to {window - 1} (window - 1), got {shift}")
        self.heads = check_heads("window.heads", heads or default_heads(channels, 32), channels)
        self.scale = (channels // self.heads) ** -0.5
        self.window = (window, window)
        self.shift = shift
        self.mask = mask
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        self.table = nn.Parameter(torch.empty((2 * window - 1) ** 2, self.heads))
        nn.init.trunc_normal_(self.table, std=0.02)
        self.register_buffer("index", _offset_index(window), persistent=False)

    def _geometry(self, x: Tensor) -> list[tuple[int, int, int]]:
        """Each axis: its side, the side padded to a multiple of w, and the shift."""
        w = self.window[0]
        return [(side, side + -side % w, self.shift if side > w else 0) for side in x.shape[2:]]

    def _apart(self, side: int, padded: int, shift: int, device: torch.device) -> Tensor:
        """1 where a query must not see a key because of one axis, else 0: (windows, w, w)."""
        position = torch.arange(padded, device=device)
        wrapped = outside(position, padded - shift).unflatten(0, (-1, self.window[0]))
        apart = (wrapped[:, :, None] - wrapped[:, None]).abs()
        if not self.mask:
            return apart
        padding = outside((position + shift) % padded, side).unflatten(0, (-1, self.window[0]))
        return torch.maximum(apart, padding[:, None])

    def _scores_and_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """q, k and v (B, windows * h, n, d), and what is added to the scores, n = w^2 tokens."""
        axes = self._geometry(x)
        shifts = [-shift for _, _, shift in axes]
        if self.mask:
            maps = pad_to_multiples(self.qkv(x), self.window)
        else:  # as Swin's code: padding becomes keys and values that hold the biases
            maps = self.qkv(pad_to_multiples(x, self.window))
        maps = maps.roll(shifts, (2, 3)) if any(shifts) else maps
        parts = [to_windows(part, self.window, self.heads) for part in maps.chunk(3, 1)]
        bias = F.embedding(self.index, upcast(self.table)).permute(2, 0, 1)  # (h, n, n)
        apart = either(*(self._apart(*axis, x.device) for axis in axes))
        bias = bias + MASKED * apart[:, None].to(bias.dtype)
        return parts[0], parts[1], parts[2], bias.flatten(0, 1)[None]

    def _to_map(self, windows: Tensor, x: Tensor, heads: int) -> Tensor:
        """Invert the cut, the roll and the padding."""
        (height, padded_height, down), (width, padded_width, right) = self._geometry(x)
        y = from_windows(windows, self.window, (padded_height, padded_width), heads)
        y = y.roll((down, right), (2, 3)) if down or right else y
        return y[:, :, :height, :width]

    def attended(self, x: Tensor) -> Tensor:
        query, key, value, bias = self._scores_and_values(x)
        attended = scaled_dot_product(query, key, value, self.scale, bias=bias)
        return self.out(self._to_map(attended, x, self.heads))

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        """`query`: zero outside the window of `point`."""
        axes = self._geometry(x)
        point = divmod(flat_index(point, x.shape[2:]), x.shape[3])
        position = [
            (at - shift) % padded for at, (_, padded, shift) in zip(point, axes, strict=True)
        ]
        number, index = locate(position, self.window, axes[1][1])
        query, key, _, bias = self._scores_and_values(x)
        rows = dot_product_weights(query, key, self.scale, bias)[:, :, index]  # (B, windows * h, n)
        rows = rows.unflatten(1, (-1, self.heads)).mean(2)
        row = torch.zeros_like(rows)
        row[:, number] = rows[:, number]
        return {"query": self._to_map(row[..., None], x, 1)[:, 0]}


def _offset_index(window: int) -> Tensor:
    """The row of the table for each query and key of a window: (n, n), n = window^2."""
    position = torch.arange(window)
    offset = position[:, None] - position + window - 1
    rows = offset[:, None, :, None] * (2 * window - 1)
    return (rows + offset[None, :, None]).flatten(2).flatten(0, 1)
