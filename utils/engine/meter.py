"""The loss over an epoch, summed on the device that computes it."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class LossMeter:
    """Sums named values over steps, on their device.

    Reading a number from a GPU waits for all work queued before it. On a GPU, `latest` therefore
    returns the result of an asynchronous copy, a few steps old; only `sums` waits.

    Args:
        names: names of the values.
        device: device of the values.
    """

    def __init__(self, names: Sequence[str], device: torch.device) -> None:
        self.names = tuple(names)
        dtype = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        self._total = torch.zeros(len(names), dtype=dtype, device=device)
        self._synchronous = device.type != "cuda"
        self._steps = 0
        self._latest: tuple[dict[str, float], int] = ({}, 0)
        self._pending: tuple[Tensor, torch.cuda.Event, int] | None = None

    def start(self, sums: Mapping[str, float], steps: int) -> None:
        """Begin an epoch, or continue one.

        Args:
            sums: sums so far, by name; missing ones are 0.
            steps: number of steps so far.
        """
        full = {name: sums.get(name, 0.0) for name in self.names}
        self._total.copy_(torch.tensor(list(full.values()), dtype=self._total.dtype))
        self._steps = steps
        self._latest = (full, steps)
        self._pending = None

    def add(self, values: Tensor) -> None:
        """Add the values of a step, `(len(names),)`, on the device."""
        self._total += values
        self._steps += 1

    def sums(self) -> dict[str, float]:
        """Return the sums over all steps."""
        return dict(zip(self.names, self._total.tolist(), strict=True))

    def latest(self) -> tuple[dict[str, float], int]:
        """Return the sums and the number of steps they cover; on a GPU, from a few steps ago."""
        if self._synchronous:
            return self.sums(), self._steps
        if self._pending and self._pending[1].query():
            values, _, steps = self._pending
            self._latest = dict(zip(self.names, values.tolist(), strict=True)), steps
            self._pending = None
        if self._pending is None:
            self._pending = self._copy()
        return self._latest

    def _copy(self) -> tuple[Tensor, torch.cuda.Event, int]:
        """Start an asynchronous copy of the sums into main memory."""
        values = torch.empty(self._total.shape, dtype=self._total.dtype, pin_memory=True)
        values.copy_(self._total, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        return values, copied, self._steps
