"""Training steps whose loss or gradient is not finite: skipped, reported, and limited in number."""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from utils.core.errors import NonFiniteError

LIMIT = 5  # steps in a row that may be skipped
SHOWN = 4  # number of image names per message


class NonFiniteGuard:
    """Keeps steps that are not finite out of a network.

    Args:
        network: the network that is trained. Its batch statistics change in the forward pass and
            are restored if the step is skipped.
    """

    def __init__(self, network: nn.Module) -> None:
        self._buffers = [
            buffer
            for buffer in network.buffers()
            if buffer.is_floating_point() and buffer.device.type == "cpu"
        ]
        self._before = [torch.empty_like(buffer) for buffer in self._buffers]
        self._in_a_row = 0

    def start_step(self) -> None:
        """Remember the batch statistics, before the forward pass."""
        if self._buffers:
            torch._foreach_copy_(self._before, self._buffers)

    def finish_step(self) -> None:
        """Note a step that was finite."""
        self._in_a_row = 0

    def skip_step(self, where: str, problem: str, images: list[str], drawing: Path) -> None:
        """Undo the forward pass and report the step.

        Args:
            where: epoch and step.
            problem: what is not finite.
            images: names of the images of the batch.
            drawing: file that shows the batch.

        Raises:
            NonFiniteError: too many steps in a row were skipped.
        """
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._before)
        self._in_a_row += 1
        shown = ", ".join(images[:SHOWN]) + (", ..." if len(images) > SHOWN else "")
        report = f"{problem} is not finite in {where}; images {shown}, drawn in {drawing}"
        if self._in_a_row >= LIMIT:
            raise NonFiniteError(
                f"{report}; the {LIMIT}th step in a row: lower train.lr, or set precision=fp32"
            )
        tqdm.write(f"step skipped: {report}")


def problem_in_losses(losses: Mapping[str, float]) -> str | None:
    """The first term that is not finite, with its value, or None.

    Args:
        losses: the sum, then its terms.
    """
    total, *terms = losses
    for name in (*terms, total):
        if not math.isfinite(losses[name]):
            return f"the loss ({name} {losses[name]:g})"
    return None


def problem_in_gradient(network: nn.Module, norm: Tensor) -> str | None:
    """The first parameter whose gradient is not finite, or None.

    Args:
        network: the network, after the backward pass.
        norm: norm of the whole gradient, on a CPU.
    """
    if math.isfinite(float(norm)):
        return None
    for name, parameter in network.named_parameters():
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            return f"the gradient of {name}"
    return "the norm of the gradient"
