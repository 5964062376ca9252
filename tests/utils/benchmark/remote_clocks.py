"""Functions that the tests of `remote` call in a process of their own."""

import os
import time
from collections.abc import Mapping

from utils.core.errors import UserError
from utils.core.timing import Clock


def make(factor: float) -> Mapping[str, Clock]:
    def fail() -> float:
        raise ValueError("no such thing\nsecond line")

    return {
        "double": lambda: 2 * factor,
        "process": lambda: float(os.getpid()),
        "fail": fail,
        "die": lambda: os._exit(3),
    }


def refuse() -> Mapping[str, Clock]:
    print("not shown")
    raise UserError("backend=x: not here")


def hang() -> Mapping[str, Clock]:
    time.sleep(60)
    return {}
