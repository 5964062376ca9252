"""Signals that end a command, which work that must not be cut in two can put off."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Ctrl-C, `kill` and batch systems, a closed terminal

_received: int | None = None  # a signal that `leave_to_main_process` kept from ending this process
_last: int | None = None  # the signal that last ended this process's work
_depth = 0  # nested blocks of `deferred`
_pending: int | None = None  # the signal that arrived in one of them


class Stopped(KeyboardInterrupt):
    """A signal ended the command.

    Attributes:
        signum: its number.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum

    def __str__(self) -> str:
        name = signal.Signals(self.signum).name
        return "interrupted" if name == "SIGINT" else f"stopped by {name}"


def install_handlers() -> None:
    """Raise `Stopped` in the main thread on SIGINT, SIGTERM and SIGHUP.

    A signal that is ignored stays ignored: `nohup` ignores SIGHUP.
    """
    for name in NAMES:
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Restore the handlers of all signals that a library replaces inside the block.

    Only the main thread can: in another one, the block runs as it is.
    """
    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    handlers = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        is_main = threading.current_thread() is threading.main_thread()
        for number, handler in handlers.items():
            # even if it seems unchanged: a library in C++ replaces it unseen
            if is_main and handler is not None:  # None: not one of Python's
                signal.signal(number, handler)


def leave_to_main_process() -> None:
    """Only remember signals: a process of several ends when the main process does."""
    for name in NAMES:
        number = getattr(signal, name, None)
        if number is not None:
            signal.signal(number, _remember)


def received() -> int | None:
    """The signal that `leave_to_main_process` remembered, if any."""
    return _received


def as_stopped(error: KeyboardInterrupt) -> Stopped:
    """The signal behind an interrupt: libraries raise another one in place of `Stopped`."""
    return error if isinstance(error, Stopped) else Stopped(_last or signal.SIGINT)


def _remember(signum: int, frame: FrameType | None) -> None:
    global _received
    _received = signum


@contextmanager
def deferred() -> Iterator[None]:
    """Put off a signal to the end of the block; a second one ends the block at once."""
    global _depth, _pending
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        signum = _pending
        if not _depth:
            _pending = None
    if signum is not None and not _depth:
        raise Stopped(signum)


def _stop(signum: int, frame: FrameType | None) -> None:
    global _last, _pending
    _last = signum
    if _depth and _pending is None:
        _pending = signum
        return
    _pending = None
    raise Stopped(signum)
