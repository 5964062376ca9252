"""Muon: SGD whose updates of weight matrices are orthogonalized."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from utils.core.devices import DTYPES, pick_precision

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Jordan's Newton-Schulz iteration
ITERATIONS = 3  # as accurate on the steel data as five, at half the time
SMALLEST_NORM = 1e-7
MATRIX_MOMENTUM = 0.95
# The root mean square of an update of a matrix, relative to the learning rate. With 0.2 it would be
# that of AdamW (Liu et al., arXiv 2502.16982), whose learning rates are a third of SGD's here.
UPDATE_RMS = 0.06


class Muon(torch.optim.Optimizer):
    """Muon for matrices, SGD with Nesterov momentum for everything else.

    Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024. The momentum of
    a weight matrix is replaced by the nearest orthogonal matrix, approximately, so that all
    directions are learned equally fast. The kernels of a convolution are the rows of a matrix.

    Args:
        matrices: weights of two or more dimensions, `(out, ...)`.
        groups: groups of the other parameters, as for `torch.optim.SGD`.
        lr: learning rate of all.
        momentum: of the other parameters, 0..1.
        weight_decay: of the matrices, relative to the learning rate.
    """

    def __init__(
        self,
        matrices: Sequence[Tensor],
        groups: Sequence[dict[str, Any]],
        lr: float,
        momentum: float,
        weight_decay: float,
    ) -> None:
        first = {"params": matrices, "orthogonal": True, "weight_decay": weight_decay}
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": 0.0, "orthogonal": False}
        super().__init__([first, *groups], defaults)
        device = matrices[0].device
        self._dtype = DTYPES.get(pick_precision("auto", device), torch.float32)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not group["orthogonal"]:
                self._sgd_step(parameters, group)
                continue
            for parameter in parameters:
                self._matrix_step(parameter, group["lr"], group["weight_decay"])

    def _sgd_step(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        if not parameters:
            return
        buffers = [self.state[p].get("momentum_buffer") for p in parameters]
        sgd(
            parameters,
            [p.grad for p in parameters],  # type: ignore[misc]
            buffers,
            foreach=True,
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            lr=group["lr"],
            dampening=0.0,
            nesterov=group["momentum"] > 0,
            maximize=False,
        )
        for parameter, buffer in zip(parameters, buffers, strict=True):
            self.state[parameter]["momentum_buffer"] = buffer

    def _matrix_step(self, parameter: Tensor, lr: float, weight_decay: float) -> None:
        gradient = parameter.grad
        assert gradient is not None
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        average = state["momentum_buffer"].lerp_(gradient, 1 - MATRIX_MOMENTUM)
        update = orthogonalize(gradient.lerp(average, MATRIX_MOMENTUM), self._dtype)
        size = UPDATE_RMS * math.sqrt(max(len(parameter), parameter[0].numel()))
        parameter.mul_(1 - lr * weight_decay).sub_(update, alpha=lr * size)


def orthogonalize(weight: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Move all singular values of a matrix close to 1 by Newton-Schulz iterations.

    Args:
        weight: `(out, ...)`, a matrix with `out` rows.
        dtype: type of the products; bf16 is precise enough.

    Returns:
        A tensor of the same shape and type.
    """
    if weight.ndim == 4:  # as it lies in memory; the order of the columns does not matter
        rows = weight.permute(0, 2, 3, 1)
        return _orthogonal_matrix(rows.flatten(1), dtype).reshape(rows.shape).permute(0, 3, 1, 2)
    return _orthogonal_matrix(weight.flatten(1), dtype).reshape(weight.shape)


def _orthogonal_matrix(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """Iterate X <- (a + bG + cG^2) X with G = X X^T.

    Each iteration multiplies X from the left. These factors are multiplied first, as they are
    smaller than X; they are polynomials of the first G and therefore commute.
    """
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if is_tall else matrix).to(dtype)
    x = x / x.norm().clamp(min=SMALLEST_NORM)
    gram = x @ x.T
    product = torch.eye(len(x), dtype=dtype, device=x.device)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        product = factor @ product
        gram = factor @ gram @ factor
    x = product @ x
    return (x.T if is_tall else x).to(matrix.dtype)
