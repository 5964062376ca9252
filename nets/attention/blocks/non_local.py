"""Non-local block: the response at a position is a weighted sum over all positions.

Wang, Girshick, Gupta, He: Non-local Neural Networks, CVPR 2018, arXiv 1711.07971

    y_i = (1 / n) sum_j f(x_i, x_j) g(x_j)   (B, i, H, W), i = max(C // 2, 1)
    z = x + BN(W y)                          (B, C, H, W)

theta, phi and g are 1x1 convolutions C -> i with bias, W is one i -> C. The modes:
    gaussian           f = exp(x_i . x_j), n = sum over j of f; without theta and phi
    embedded_gaussian  f = exp(theta_i . phi_j), n = sum over j of f: a softmax over j
    dot_product        f = theta_i . phi_j, n = number of keys; theta (phi^T g) / n is linear in N
    concatenation      f = relu(w . [theta_i; phi_j]) = relu(w_a . theta_i + w_b . phi_j),
                       n = number of keys

sub_sample: phi and g (gaussian: x and g) are max-pooled by 2 over H and W, except along an axis of
one position. The BN (or W, without one) starts at zero: the block starts as the identity.
Shapes by `dimension`: 1 (B, C, L), 2 (B, C, H, W), 3 (B, C, T, H, W); time is never pooled.
"""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from nets.attention.base import AttentionBlock, AttentionMaps
from nets.attention.layers import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    dot_product_weights,
    flat_index,
    from_tokens,
    no_autocast,
    scaled_dot_product,
    spread_weights,
    to_tokens,
    upcast,
)
from nets.attention.options import PositiveInt
from nets.attention.registry import register

CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORMS = {1: BatchNorm1d, 2: BatchNorm2d, 3: BatchNorm3d}
POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


@register(
    "non_local",
    family="self_attention",
    paper="Wang et al.: Non-local Networks, CVPR 2018, arXiv 1711.07971",
)
class NonLocal(AttentionBlock):
    """Non-local block.

    Args:
        channels: C.
        mode: the function f, see above; embedded_gaussian as in the paper's experiments.
        dimension: number of axes after C, 1, 2 or 3.
        sub_sample: pool the keys, as in the paper.
        bn: batch normalization after W, as in the paper.
        inter: the width i, >= 1; None: C // 2, as in the paper.

    Traps:
        - Mode gaussian on raw features looks up each position itself: with unit variance and C =
          256 its own weight is 1.
        - A side of 1 is not pooled.
    """

    identity_at_start = True

    def __init__(
        self,
        channels: int,
        *,
        mode: Literal[
            "embedded_gaussian", "gaussian", "dot_product", "concatenation"
        ] = "embedded_gaussian",
        dimension: Literal[1, 2, 3] = 2,
        sub_sample: bool = True,
        bn: bool = True,
        inter: PositiveInt | None = None,
    ) -> None:
        super().__init__()
        inter = inter or max(channels // 2, 1)
        conv = CONVS[dimension]
        embedded = mode != "gaussian"
        self.mode = mode
        self.dimension = dimension
        self.sub_sample = sub_sample
        self.g = conv(channels, inter, 1)
        self.theta = conv(channels, inter, 1) if embedded else nn.Identity()
        self.phi = conv(channels, inter, 1) if embedded else nn.Identity()
        self.score = nn.Linear(2 * inter, 1, bias=False) if mode == "concatenation" else None
        self.W = conv(inter, channels, 1)
        self.bn = NORMS[dimension](channels) if bn else None
        for parameter in (self.W if self.bn is None else self.bn).parameters():
            nn.init.zeros_(parameter)
        self.zero_gradient = self._cancelled_biases()

    def _cancelled_biases(self) -> tuple[str, ...]:
        cancelled = []
        if self.mode == "embedded_gaussian":
            cancelled.append("phi.bias")  # the same for all keys of the softmax
        if self.bn is not None:
            cancelled.append("W.bias")
            if "gaussian" in self.mode:
                cancelled.append("g.bias")  # as rows sum to 1, it is a constant before the BN
        return tuple(cancelled)

    def _pool(self, x: Tensor) -> Tensor:
        if not self.sub_sample:
            return x
        window = [min(side, 2) for side in x.shape[2:]]
        if self.dimension == 3:
            window[0] = 1
        return POOLS[self.dimension](x, window, window)

    def _weights(self, theta: Tensor, phi: Tensor) -> Tensor:
        """Weights f / n of queries (B, q, i) for all keys (B, k, i): (B, q, k), float32."""
        if "gaussian" in self.mode:
            return dot_product_weights(theta, phi)
        theta, phi = upcast(theta), upcast(phi)
        keys = phi.shape[1]
        with no_autocast(theta):
            if self.score is None:
                return theta @ phi.transpose(1, 2) / keys
            of_theta, of_phi = upcast(self.score.weight).chunk(2, 1)
            pairs = theta @ of_theta.t() + (phi @ of_phi.t()).transpose(1, 2)  # (B, q, k)
            return F.relu(pairs) / keys

    def _weighted_sum(self, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        """Sum over j of (f / n) g_j: (B, N, i), without storing f if the mode allows it."""
        if "gaussian" in self.mode:
            return scaled_dot_product(theta, phi, g)
        with no_autocast(theta):
            if self.mode == "dot_product":
                summary = upcast(phi).transpose(1, 2) @ upcast(g) / phi.shape[1]
                return (upcast(theta) @ summary).to(g.dtype)
            return (self._weights(theta, phi) @ upcast(g)).to(g.dtype)

    def forward(self, x: Tensor) -> Tensor:
        theta, phi, g = self.theta(x), self._pool(self.phi(x)), self._pool(self.g(x))
        weighted = self._weighted_sum(to_tokens(theta), to_tokens(phi), to_tokens(g))
        y = self.W(from_tokens(weighted, x.shape[2:]))
        return x + (y if self.bn is None else self.bn(y))

    def attention(self, x: Tensor, point: tuple[int, ...] | None = None) -> AttentionMaps:
        index = flat_index(point, x.shape[2:])
        phi = self._pool(self.phi(x))
        query = to_tokens(self.theta(x))[:, index : index + 1]
        row = self._weights(query, to_tokens(phi))[:, 0].unflatten(1, phi.shape[2:])
        return {"query": spread_weights(row, x.shape[2:], 2)}
