"""The machine that a trial ran on, and whether the trial had it to itself."""

import os
import time
from pathlib import Path

import scipy
import torch

from utils.core.environment import describe_device, library_versions

OTHERS = 0.1  # cores that all other processes may have used, on average
STATISTICS = Path("/proc/stat")
BUSY = (0, 1, 2, 5, 6, 7)  # its columns user, nice, system, irq, softirq, steal


def describe_machine(device: torch.device) -> str:
    """Processor and versions, in one line."""
    versions = {**library_versions(), "scipy": scipy.__version__}
    shown = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{describe_device(device)}; {shown}"


class LoadWatch:
    """Watches from now on whether other processes use the CPU; other users of a GPU are not seen.

    A training time says something about a setting only if there were none.
    """

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._others = _seconds_of_others()

    def is_alone(self) -> bool:
        """Whether others have hardly used the CPU so far; false where that is not known."""
        now = _seconds_of_others()
        if now is None or self._others is None:
            return False
        return now - self._others <= OTHERS * (time.monotonic() - self._started)


def _seconds_of_others() -> float | None:
    """CPU seconds of all other processes since the machine started; None if not known."""
    try:
        columns = STATISTICS.read_text().splitlines()[0].split()[1:]
        ticks = sum(int(columns[index]) for index in BUSY)
    except (OSError, ValueError, IndexError):  # not Linux, or hidden in a container
        return None
    own = os.times()
    return ticks / os.sysconf("SC_CLK_TCK") - sum(own[:4])
