"""Partial self-attention's attention layer: every map is a convolution with batch normalization.

Wang, Chen, Liu, Chen, Lin, Han, Ding: YOLOv10: Real-Time End-to-End Object Detection, NeurIPS 2024,
arXiv 2405.14458

    q, k, v = BN(conv1x1(x))                 h heads: k = int(ratio d), k and d = C / h channels
    A = softmax(q k^T / sqrt(k))             (B, h, N, N)
    y = x + BN(conv1x1(A v + BN(dw3x3(v))))  (B, C, H, W), dw3x3 tells where a position is
    y = y + BN(W2 silu(BN(W1 y)))            only if mlp_ratio > 0, of mlp_ratio * C channels

`area` computes the same inside parts of the map, so `ConvAttention` knows parts; here there is one.
"""

from torch import Tensor, cat, nn
from torch.nn import functional as F

from nets.attention.base import AttentionMaps, ResidualAttention
from nets.attention.layers import (
    BatchNorm2d,
    check_heads,
    default_heads,
    dot_product_weights,
    flat_index,
    join_channels,
    scaled_dot_product,
)
from nets.attention.options import MlpRatio, PositiveInt, Share
from nets.attention.registry import register


def conv_norm(inputs: int, outputs: int, kernel_size: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution and a batch normalization with the constants of the YOLO papers' code."""
    conv = nn.Conv2d(
        inputs, outputs, kernel_size, padding=kernel_size // 2, groups=groups, bias=False
    )
    return nn.Sequential(conv, BatchNorm2d(outputs, eps=1e-3, momentum=0.03))


def split_runs(x: Tensor, length: int) -> list[Tensor]:
    """`(B, h, N, d)` -> `(B, h * runs, length, d)`, and the shorter last run if there is one."""
    whole = x.shape[2] - x.shape[2] % length
    runs = [x[:, :, :whole].unflatten(2, (-1, length)).flatten(1, 2)]
    return runs + [x[:, :, whole:]] * (whole < x.shape[2])


class ConvAttention(ResidualAttention):
    """Attention between positions of the same run, for `psa_yolo` and `area`.

    Args:
        channels: C.
        heads: the number h, divides C.
        key_width: channels of a head's queries and keys.
        kernel_size: odd side of the depthwise convolution.
        runs: number of runs of ceil(N / runs) positions, in row-major order; the last is shorter if
            N is no multiple.
        mlp_ratio: hidden width of the MLP over C; 0: no MLP.
        residual: add x to the attention.
    """

    zero_gradient = ("pe.1.bias",)  # the same at all positions: the normalization of proj cancels

    def __init__(
        self,
        channels: int,
        heads: int,
        key_width: int,
        kernel_size: int,
        runs: int,
        mlp_ratio: float,
        residual: bool,
    ) -> None:
        super().__init__(residual)
        self.heads = heads
        self.widths = [key_width, key_width, channels // heads]
        self.scale = key_width**-0.5
        self.runs = runs
        self.qkv = conv_norm(channels, heads * sum(self.widths))
        self.pe = conv_norm(channels, channels, kernel_size, channels)
        self.proj = conv_norm(channels, channels)
        hidden = int(mlp_ratio * channels)
        self.mlp = None
        if hidden:
            self.mlp = nn.Sequential(
                conv_norm(channels, hidden), nn.SiLU(), conv_norm(hidden, channels)
            )

    def _query_key_value(self, x: Tensor) -> list[Tensor]:
        """Three tensors (B, h, N, width)."""
        heads = self.qkv(x).flatten(2).unflatten(1, (self.heads, -1))
        return [part.transpose(2, 3) for part in heads.split(self.widths, 2)]

    def _run_length(self, positions: int) -> int:
        return -(-positions // self.runs)

    def attended(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        parts = self._query_key_value(x)
        length = self._run_length(size.numel())
        runs = zip(*(split_runs(part, length) for part in parts), strict=True)
        attended = [
            scaled_dot_product(query, key, value, self.scale)
            .unflatten(1, (self.heads, -1))
            .flatten(2, 3)
            for query, key, value in runs
        ]
        return self.proj(
            join_channels(cat(attended, 2), size) + self.pe(join_channels(parts[2], size))
        )

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y if self.mlp is None else y + self.mlp(y)

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        """`query`: zero outside the run of `point`."""
        size = x.shape[2:]
        index = flat_index(point, size)
        length = self._run_length(size.numel())
        start = index // length * length
        query, key, _ = self._query_key_value(x)
        key = key[:, :, start : start + length]
        row = dot_product_weights(query[:, :, index : index + 1], key, self.scale)[:, :, 0].mean(1)
        after = size.numel() - start - row.shape[1]
        return {"query": F.pad(row, (start, after)).unflatten(1, size)}


@register(
    "psa_yolo",
    family="self_attention",
    paper="Wang et al.: YOLOv10, NeurIPS 2024, arXiv 2405.14458",
)
class PSAYolo(ConvAttention):
    """Attention layer of YOLOv10; with mlp_ratio 2, YOLO11's block. Its map is the heads' mean.

    Args:
        channels: C.
        heads: the number h, divides C; None: the largest divisor of C that is at most C // 64.
        ratio: channels of queries and keys over those of values, above 0, at most 1.
        mlp_ratio: hidden width of the MLP over C; 0: no MLP.
        residual: add x to the attention.

    Traps:
        - Its norms have eps 1e-3: folding them with 1e-5 gives other outputs.
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: PositiveInt | None = None,
        ratio: Share = 0.5,
        mlp_ratio: MlpRatio = 0.0,
        residual: bool = True,
    ) -> None:
        heads = check_heads("psa_yolo.heads", heads or default_heads(channels, 64), channels)
        key_width = max(int(channels // heads * ratio), 1)
        super().__init__(channels, heads, key_width, 3, 1, mlp_ratio, residual)
