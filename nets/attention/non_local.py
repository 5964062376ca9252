"""Non-local block: a position's response is a weighted sum over all positions, with a choice of weight.

non_local  Wang, Girshick, Gupta, He: Non-local Neural Networks, CVPR 2018, arXiv 1711.07971

y_i = (1 / n) sum_j f(x_i, x_j) g(x_j);  z = x + BN(W y)
theta, phi, g: 1x1 convolutions with bias, C -> i = max(C // 2, 1); W: i -> C
gaussian           f = exp(x_i . x_j), n = sum_j f (no theta, phi)
embedded_gaussian  f = exp(theta_i . phi_j), n = sum_j f: a softmax over j
dot_product        f = theta_i . phi_j, n = number of keys; computed as theta (phi^T g) / n, linear in N
concatenation      f = relu(w . [theta_i; phi_j]), n = number of keys; w splits into w_a . theta_i + w_b . phi_j
sub_sample: phi and g (gaussian: x and g) are max-pooled by 2 over H, W: a quarter of the keys, no axis below 1.
The BN (or W, without one) starts at zero: the block starts as the identity.

Shapes by `dimension`: 1 (B, C, L), 2 (B, C, H, W), 3 (B, C, T, H, W); time is never pooled.
"""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from nets.attention.layers import (
    AttentionBlock,
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    Maps,
    attend,
    attention_row,
    full,
    no_autocast,
    position,
    spread,
)
from nets.attention.options import Count
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
    """Non-local block. `inter`: the width i; `bn`: batch normalization after W."""

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
        inter: Count | None = None,
    ) -> None:
        super().__init__()
        inter = inter or max(channels // 2, 1)
        conv, embedded = CONVS[dimension], mode != "gaussian"
        self.mode, self.dimension, self.sub_sample = mode, dimension, sub_sample
        self.g = conv(channels, inter, 1)
        self.theta = conv(channels, inter, 1) if embedded else nn.Identity()
        self.phi = conv(channels, inter, 1) if embedded else nn.Identity()
        self.score = nn.Linear(2 * inter, 1, bias=False) if mode == "concatenation" else None
        self.W = conv(inter, channels, 1)
        self.bn = NORMS[dimension](channels) if bn else None
        for parameter in (self.W if self.bn is None else self.bn).parameters():
            nn.init.zeros_(parameter)
        self.zero_gradient = self._cancelled()

    def _cancelled(self) -> tuple[str, ...]:
        """Biases without effect: of phi under the softmax; before the BN that of W and, as rows sum to 1, of g."""
        softmax = "gaussian" in self.mode
        norm = self.bn is not None
        effects = {
            "phi.bias": self.mode == "embedded_gaussian",
            "W.bias": norm,
            "g.bias": norm and softmax,
        }
        return tuple(name for name, cancelled in effects.items() if cancelled)

    def _pool(self, x: Tensor) -> Tensor:
        if not self.sub_sample:
            return x
        sides = x.shape[2:]
        window = [min(side, 2) for side in sides]  # an axis of one position is not pooled
        if self.dimension == 3:
            window[0] = 1
        return POOLS[self.dimension](x, window, window)

    def _weights(self, theta: Tensor, phi: Tensor) -> Tensor:
        """F / n of some queries `(B, n, i)` with all keys `(B, M, i)`: `(B, n, M)`, float32."""
        if "gaussian" in self.mode:
            return attention_row(theta, phi)
        theta, phi = full(theta), full(phi)
        with no_autocast(theta):
            if self.score is None:
                return theta @ phi.transpose(1, 2) / phi.shape[1]
            of_theta, of_phi = full(self.score.weight).chunk(2, 1)
            pairs = theta @ of_theta.t() + (phi @ of_phi.t()).transpose(
                1, 2
            )  # (B, n, 1) + (B, 1, M)
            return F.relu(pairs) / phi.shape[1]

    def _mix(self, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        """sum_j (f / n) g_j: `(B, N, i)`, without the N x M matrix where the mode allows it."""
        if "gaussian" in self.mode:
            return attend(theta, phi, g)
        with no_autocast(theta):
            if self.mode == "dot_product":
                return (full(theta) @ (full(phi).transpose(1, 2) @ full(g) / phi.shape[1])).to(
                    g.dtype
                )
            return (self._weights(theta, phi) @ full(g)).to(g.dtype)

    def forward(self, x: Tensor) -> Tensor:
        theta, phi, g = self.theta(x), self._pool(self.phi(x)), self._pool(self.g(x))
        mixed = self._mix(*(part.flatten(2).transpose(1, 2) for part in (theta, phi, g)))
        y = self.W(mixed.transpose(1, 2).unflatten(2, x.shape[2:]))
        return x + (y if self.bn is None else self.bn(y))

    def attention(self, x: Tensor, point: tuple[int, ...] | None = None) -> Maps:
        index = position(point, x.shape[2:])
        phi = self._pool(self.phi(x))
        query = self.theta(x).flatten(2).transpose(1, 2)[:, index : index + 1]
        row = self._weights(query, phi.flatten(2).transpose(1, 2))[:, 0].unflatten(1, phi.shape[2:])
        return {"query": spread(row, x.shape[2:])}
