"""Interleaved timing: candidates run in rounds, so that a slow moment affects all of them.

The ratio of two timings within a round says which one is faster; a single timing also depends on
how busy the machine was.
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

from utils.core.progress import progress_bar

WARMUP_SHARE = 0.2  # warm-up time, as a share of the measuring time
MIN_ROUNDS, MAX_ROUNDS, WARMUP_ROUNDS = 10, 200, 3  # of `interleaved_times`

Clock = Callable[[], float]  # runs the work once and returns the milliseconds it took


@dataclass(frozen=True)
class Stat:
    """Summary of a sample.

    Attributes:
        median: the median.
        low: lower quartile.
        high: upper quartile.
        n: number of values.
    """

    median: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: ArrayLike) -> "Stat":
        """Summarize at least one value; quartiles are interpolated linearly."""
        array = np.asarray(values, np.float64)
        low, median, high = np.percentile(array, (25, 50, 75))
        return cls(float(median), float(low), float(high), array.size)


@dataclass(frozen=True)
class Budget:
    """How long to measure.

    Attributes:
        seconds: measuring time; another fifth of it is spent on warm-up first.
        min_rounds: minimum number of rounds, however long they take.
        max_rounds: maximum number of rounds; None: no limit.
        warmup: minimum number of warm-up rounds; 0: no warm-up at all.
    """

    seconds: float
    min_rounds: int = 3
    max_rounds: int | None = None
    warmup: int = 1


def interleave(
    clocks: Mapping[str, Clock], budget: Budget, title: str = "measuring"
) -> dict[str, np.ndarray]:
    """Run all clocks once per round until the budget is spent.

    Args:
        clocks: name to clock.
        budget: how long to measure.
        title: label of the progress bar.

    Returns:
        Milliseconds of each clock, float64 `(rounds,)`; index i is the same round for all clocks.
    """
    with progress_bar(desc=title, unit="run") as bar:
        if budget.warmup:
            warmup = Budget(WARMUP_SHARE * budget.seconds, budget.warmup)
            _run_rounds(clocks, warmup, bar)
        rounds = np.array(_run_rounds(clocks, budget, bar))
    return dict(zip(clocks, rounds.T, strict=True))


def interleaved_times(
    calls: Mapping[str, Callable[[], Any]], seconds: float
) -> dict[str, np.ndarray]:
    """Milliseconds of every run of interleaved functions, measured for about `seconds` each."""
    budget = Budget(seconds * len(calls), MIN_ROUNDS, MAX_ROUNDS, WARMUP_ROUNDS)
    clocks = {name: timed(call) for name, call in calls.items()}
    return interleave(clocks, budget, "measuring latency")


def medians(times: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Median milliseconds by name, to the microsecond."""
    return {name: round(float(np.median(values)), 3) for name, values in times.items()}


def _run_rounds(clocks: Mapping[str, Clock], budget: Budget, bar: tqdm) -> list[list[float]]:
    end = time.perf_counter() + budget.seconds
    max_rounds = math.inf if budget.max_rounds is None else budget.max_rounds
    rounds: list[list[float]] = []
    while len(rounds) < budget.min_rounds or (
        time.perf_counter() < end and len(rounds) < max_rounds
    ):
        times = []
        for name, clock in clocks.items():
            bar.set_postfix_str(name, refresh=False)
            times.append(clock())
            bar.update()
        rounds.append(times)
    return rounds


def timed(
    call: Callable[[], Any],
    count: int = 1,
    device: torch.device | None = None,
    before: Callable[[], Any] | None = None,
) -> Clock:
    """Return a clock that measures the mean time of a call, milliseconds.

    Args:
        call: what to time.
        count: number of consecutive calls per measurement.
        device: where `call` computes; a GPU is synchronized before and after.
        before: called before each measurement, untimed, e.g. to refill the caches.
    """

    def clock() -> float:
        if before is not None:
            before()
        return milliseconds(call, count, device)

    return clock


def block_timed(call: Callable[[], Any], block: float, device: torch.device | None = None) -> Clock:
    """Return a clock for a short call: each measurement repeats it and takes the mean.

    An untimed call comes before each measurement, since other clocks have emptied the caches.

    Args:
        call: what to time.
        block: length of a measurement, milliseconds.
        device: where `call` computes; a GPU is synchronized before and after.
    """
    call()
    count = math.ceil(block / max(milliseconds(call, device=device), 1e-3))
    return timed(call, max(1, count), device, before=call)


def milliseconds(
    call: Callable[[], Any], count: int = 1, device: torch.device | None = None
) -> float:
    """Return the mean time of `count` consecutive calls; arguments as for `timed`."""
    synchronize(device)
    start = time.perf_counter()
    for _ in range(count):
        call()
    synchronize(device)
    return 1000 * (time.perf_counter() - start) / count


def synchronize(device: torch.device | None) -> None:
    """Wait until a GPU has finished its queued work; a no-op for a CPU."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device is not None and device.type == "mps":
        torch.mps.synchronize()
