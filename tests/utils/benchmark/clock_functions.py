"""Functions that the tests of `ClockProcess` call in a process of their own."""

import os
import time

from utils.core.timing import Clock


def make(factor: float) -> dict[str, Clock]:
    print("not shown")
    return {
        "double": lambda: 2 * factor,
        "process": lambda: float(os.getpid()),
        "die": lambda: os._exit(3),
    }


def hang() -> dict[str, Clock]:
    time.sleep(3600)
    return {}
