"""The loss over an epoch, summed where it is computed."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class LossMeter:
    """Sums named values over steps, on their device.

    Reading a number from a GPU waits until all that was asked of it before is done. So `latest` shows there what a
    copy in the background has brought, a few steps old; only `sums` waits.

    Args:
        names: of the values. device: where they are.
    """

    def __init__(self, names: Sequence[str], device: torch.device) -> None:
        self.names = tuple(names)
        exact = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        self._total = torch.zeros(len(names), dtype=exact, device=device)
        self._waits = device.type != "cuda"
        self._steps = 0
        self._shown: tuple[dict[str, float], int] = ({}, 0)
        self._arriving: tuple[Tensor, torch.cuda.Event, int] | None = None

    def start(self, sums: Mapping[str, float], steps: int) -> None:
        """Begin an epoch, or go on after `steps` steps with the sums so far."""
        self._total.copy_(
            torch.tensor([sums.get(name, 0.0) for name in self.names], dtype=self._total.dtype)
        )
        self._steps, self._arriving = steps, None
        self._shown = ({name: sums.get(name, 0.0) for name in self.names}, steps)

    def add(self, values: Tensor) -> None:
        """Values of a step, `(len(names),)`, on the device."""
        self._total += values
        self._steps += 1

    def sums(self) -> dict[str, float]:
        """Sums over all steps."""
        return dict(zip(self.names, self._total.tolist(), strict=True))

    def latest(self) -> tuple[dict[str, float], int]:
        """Sums, and the number of steps that they are of; on a GPU, of a moment ago."""
        if self._waits:
            return self.sums(), self._steps
        if self._arriving and self._arriving[1].query():
            values, _, steps = self._arriving
            self._shown = dict(zip(self.names, values.tolist(), strict=True)), steps
            self._arriving = None
        if self._arriving is None:
            self._arriving = self._send()
        return self._shown

    def _send(self) -> tuple[Tensor, torch.cuda.Event, int]:
        copy = torch.empty(self._total.shape, dtype=self._total.dtype, pin_memory=True)
        copy.copy_(self._total, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        return copy, arrived, self._steps
