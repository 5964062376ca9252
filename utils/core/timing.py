"""Timing in turns: what is compared runs side by side, round by round, so that a slow moment of the machine hits all.

Of two things timed so, the ratio within a round says which is faster; a lone number says how busy the machine was.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from tqdm import tqdm

WARMUP_SHARE = 0.2  # of the seconds measured, spent on rounds that do not count

Clock = Callable[[], float]  # does the work once, returns its milliseconds


@dataclass(frozen=True)
class Stat:
    """Median, lower and upper quartile of `n` values."""

    median: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: ArrayLike) -> "Stat":
        """Of at least one value; quartiles are interpolated linearly."""
        array = np.asarray(values, np.float64)
        low, median, high = np.percentile(array, (25, 50, 75))
        return cls(float(median), float(low), float(high), array.size)


@dataclass(frozen=True)
class Budget:
    """How long to measure: for `seconds`, but at least `least` rounds and at most `most`.

    Before that `warmup` rounds, and a fifth of `seconds`, that do not count.
    """

    seconds: float
    least: int = 3
    most: int | None = None
    warmup: int = 1


def interleave(
    clocks: Mapping[str, Clock], effort: Budget, title: str = "measuring"
) -> dict[str, np.ndarray]:
    """Milliseconds of each clock, float64 `(rounds,)`: entry i of all of them comes from the same round."""
    with tqdm(desc=title, unit="run", leave=False, disable=None) as bar:
        if effort.warmup:
            _rounds(clocks, Budget(WARMUP_SHARE * effort.seconds, effort.warmup), bar)
        rows = np.array(_rounds(clocks, effort, bar))
    return dict(zip(clocks, rows.T, strict=True))


def _rounds(clocks: Mapping[str, Clock], effort: Budget, bar: tqdm) -> list[list[float]]:
    end = time.perf_counter() + effort.seconds
    rows: list[list[float]] = []
    while len(rows) < effort.least or (
        time.perf_counter() < end and (effort.most is None or len(rows) < effort.most)
    ):
        rows.append([])
        for name, clock in clocks.items():
            bar.set_postfix_str(name, refresh=False)
            rows[-1].append(clock())
            bar.update()
    return rows


def timed(
    call: Callable[[], Any],
    count: int = 1,
    device: torch.device | None = None,
    before: Callable[[], Any] | None = None,
) -> Clock:
    """The clock of a function: milliseconds a call, the mean of a block of `count`.

    Args:
        device: where the function computes; a GPU is waited for before and after the block.
        before: called before each block, untimed; e.g. the function itself where another one has emptied the caches.
    """

    def clock() -> float:
        if before is not None:
            before()
        return milliseconds(call, count, device)

    return clock


def block_timed(call: Callable[[], Any], block: float, device: torch.device | None = None) -> Clock:
    """The clock of a short function: the mean over blocks of about `block` milliseconds.

    Before each block comes an untimed call: what ran before has emptied the caches.
    """
    call()
    count = math.ceil(block / max(milliseconds(call, device=device), 1e-3))
    return timed(call, max(1, count), device, before=call)


def milliseconds(
    call: Callable[[], Any], count: int = 1, device: torch.device | None = None
) -> float:
    """The mean of `count` calls in a row; `device` as in `timed`."""
    synchronize(device)
    start = time.perf_counter()
    for _ in range(count):
        call()
    synchronize(device)
    return 1000 * (time.perf_counter() - start) / count


def synchronize(device: torch.device | None) -> None:
    """Wait for a GPU: it computes on while Python goes on. Nothing to do for a CPU."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device is not None and device.type == "mps":
        torch.mps.synchronize()
