"""Clocks in a separate process, so that they share no allocator, threads or flags with this one.

The parent waits while the child computes, and the child while the parent does: they never overlap.
"""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any

import torch

from utils.core.errors import UserError
from utils.core.timing import Clock

TIMEOUT = 300.0  # seconds

_clocks: dict[str, Clock] = {}  # in the child


class ClockProcess:
    """A child process that holds the clocks that `make(*arguments)` returns there.

    Args:
        make: a module-level function that returns clocks by name.
        arguments: arguments of `make`.
        timeout: seconds that `make` may take.

    Raises:
        UserError: `make` or a clock failed, ended its process, or took too long.
    """

    def __init__(
        self, make: Callable[..., dict[str, Clock]], *arguments: Any, timeout: float = TIMEOUT
    ) -> None:
        self._title = f"{make.__module__}.{make.__name__}"
        context = multiprocessing.get_context("spawn")
        threads = torch.get_num_threads()
        self._executor = ProcessPoolExecutor(1, context, _prepare, (threads,))
        self._pid = self._call(TIMEOUT, os.getpid)
        self._call(timeout, _make_clocks, make, arguments)

    def clock(self, name: str) -> Clock:
        """Return the clock `name` of the child."""
        return partial(self._call, TIMEOUT, _read_clock, name)

    def close(self) -> None:
        """End the child, whatever it is doing."""
        for child in multiprocessing.active_children():
            if child.pid == self._pid:
                child.kill()
        self._executor.shutdown()

    def _call(self, timeout: float, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return self._executor.submit(function, *arguments).result(timeout)
        except UserError as error:
            message = str(error)
        except BrokenProcessPool:
            message = "its process ended; out of memory?"
        except TimeoutError:
            message = f"took over {timeout:g} s"
        self.close()
        raise UserError(f"{self._title}: {message}")


def _prepare(threads: int) -> None:
    """In the child: use the parent's number of threads, and drop what compilers print."""
    torch.set_num_threads(threads)
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


def _make_clocks(make: Callable[..., dict[str, Clock]], arguments: tuple[Any, ...]) -> None:
    _clocks.update(call_with_user_errors(make, *arguments))


def _read_clock(name: str) -> float:
    return call_with_user_errors(_clocks[name])


def call_with_user_errors(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call the function; any error becomes one line that the parent can unpickle."""
    try:
        return call(*arguments)
    except UserError:
        raise
    except Exception as error:
        first_line = str(error).partition("\n")[0]
        raise UserError(f"{type(error).__name__}: {first_line}") from None
