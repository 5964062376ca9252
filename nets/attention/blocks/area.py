"""Area attention: attention inside equal parts of the map, bands of rows in row-major order.

Tian, Ye, Doermann: YOLOv12: Attention-Centric Real-Time Object Detectors, 2025, arXiv 2502.12524

    q, k, v = BN(conv1x1(x))                 h heads of d = C / h channels, N / area positions a run
    A = softmax(q k^T / sqrt(d))             (B, h, N / area, N / area) in each run
    y = x + BN(conv1x1(A v + BN(dw7x7(v))))  (B, C, H, W), dw7x7 tells where a position is
    y = y + BN(W2 silu(BN(W1 y)))            only if mlp_ratio > 0; 1.2 is the network's block

A run is ceil(N / area) positions, the last one what is left: on 13 x 13, 43, 43, 43 and 40. A run
may end in the middle of a row. Runs only meet in the depthwise convolution.
"""

from nets.attention.blocks.psa_yolo import ConvAttention
from nets.attention.layers import check_heads, default_heads
from nets.attention.options import MlpRatio, OddInt, PositiveInt
from nets.attention.registry import register


@register("area", family="self_attention", paper="Tian et al.: YOLOv12, 2025, arXiv 2502.12524")
class Area(ConvAttention):
    """Area attention; its map is the mean of the heads, zero outside the run of the point.

    Args:
        channels: C.
        area: number of runs, >= 1; 4 as in the paper.
        heads: the number h, divides C; None: the largest divisor of C that is at most C // 32.
        kernel_size: odd side of the depthwise convolution; 7 as in the paper.
        mlp_ratio: hidden width of the MLP over C; 0: no MLP.
        residual: add x to the attention.

    Traps:
        - Runs are bands of rows, not squares, and may end in the middle of a row; they only meet in
          the depthwise convolution.
        - Its norms have eps 1e-3: folding them with 1e-5 gives other outputs.
    """

    def __init__(
        self,
        channels: int,
        *,
        area: PositiveInt = 4,
        heads: PositiveInt | None = None,
        kernel_size: OddInt = 7,
        mlp_ratio: MlpRatio = 0.0,
        residual: bool = True,
    ) -> None:
        heads = check_heads("area.heads", heads or default_heads(channels, 32), channels)
        width = channels // heads
        super().__init__(channels, heads, width, kernel_size, area, mlp_ratio, residual)
