"""Clocks in a process of their own: what one side sets for its process (allocator, threads, flags) is not the other's.

The parent waits on a pipe while the child computes, and the child while the parent does: the two never overlap.
"""

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch

from utils.core.errors import UserError
from utils.core.timing import Clock

WAIT = 300.0  # seconds for a clock to answer


class Remote:
    """A child process that holds what `make(*arguments)` returns: clocks by name.

    Args:
        make: a function of a module, as it is imported anew in the child. timeout: seconds for it to return.

    Raises:
        UserError: `make` failed, ended its process or took longer than `timeout`; from the clocks likewise.
    """

    def __init__(
        self, make: Callable[..., Mapping[str, Clock]], *arguments: Any, timeout: float = WAIT
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self.title = f"{make.__module__}.{make.__name__}"
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, torch.get_num_threads(), make, arguments), daemon=True
        )
        self._process.start()
        theirs.close()
        self.names: list[str] = self._receive(timeout)

    def clock(self, name: str) -> Clock:
        """The clock `name` of the child."""
        return partial(self._ask, name)

    def close(self) -> None:
        """End the child."""
        with contextlib.suppress(OSError):
            self._pipe.send(None)
        self._process.join(5)
        self.kill()

    def kill(self) -> None:
        """End the child whatever it is doing."""
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def _ask(self, name: str) -> float:
        self._pipe.send(name)
        return self._receive(WAIT)

    def _receive(self, timeout: float) -> Any:
        try:
            answer, error = (
                self._pipe.recv()
                if self._pipe.poll(timeout)
                else (None, f"took over {timeout:g} s")
            )
        except EOFError:
            answer, error = None, "its process ended; out of memory?"
        if error:
            self.kill()
            raise UserError(f"{self.title}: {error}")
        return answer


def _serve(
    pipe: Connection, threads: int, make: Callable[..., Mapping[str, Clock]], arguments: tuple
) -> None:
    """The child: answer with (result, error)."""
    torch.set_num_threads(threads)
    for stream in (
        1,
        2,
    ):  # what compilers and runtimes print is not for the table; errors go through the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    with contextlib.suppress(KeyboardInterrupt, EOFError, OSError):
        try:
            clocks = make(*arguments)
            pipe.send((list(clocks), None))
            while (name := pipe.recv()) is not None:
                pipe.send((clocks[name](), None))
        except Exception as error:
            first_line = str(error).partition("\n")[0]
            pipe.send(
                (
                    None,
                    first_line
                    if isinstance(error, UserError)
                    else f"{type(error).__name__}: {first_line}",
                )
            )
