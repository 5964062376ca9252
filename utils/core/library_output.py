"""What libraries write to stderr, such as libjpeg's "Corrupt JPEG data", which names no file.

`watched` tells which call of a decoder made it complain, so that the caller can name the file.
"""

import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

Value = TypeVar("Value")
COMPLAINT = re.compile(rb"Corrupt JPEG|Premature end of JPEG|Invalid SOS|libpng|Unsupported marker")


class _Capture:
    """Descriptor 2 is a file while a decoder runs; afterwards, other messages are passed on."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  open until the process ends
        self._changed = threading.Condition()
        self._running = 0
        self._waiting = 0  # for a moment in which nothing runs
        self._alone = False

    def size(self) -> int:
        """Bytes captured so far."""
        return os.fstat(self._file.fileno()).st_size

    @contextmanager
    def running(self, alone: bool = False) -> Iterator[None]:
        """Capture during the block; with `alone`, no other thread is in such a block meanwhile."""
        with self._changed:
            if alone:
                self._waiting += 1
                self._changed.wait_for(lambda: not self._running)
                self._waiting -= 1
            else:
                self._changed.wait_for(lambda: not self._alone and not self._waiting)
            self._alone = alone
            self._running += 1
            if self._running == 1:
                os.dup2(self._file.fileno(), 2)
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._alone = False
                if not self._running:
                    os.dup2(self._terminal, 2)
                    self._pass_on()
                self._changed.notify_all()

    def _pass_on(self) -> None:
        if not self.size():
            return
        self._file.seek(0)
        for line in self._file.read().splitlines(keepends=True):
            if not COMPLAINT.match(line):
                os.write(2, line)
        self._file.seek(0)
        self._file.truncate()


_capture: _Capture | None = None


def separate() -> None:
    """Give Python's stderr a descriptor of its own, so that what libraries write can be told apart.

    Does nothing if stderr is not the process's own, as in a test, or there is no place for a file.
    """
    global _capture
    if _capture is not None or sys.stderr is not sys.__stderr__ or sys.stderr is None:
        return
    with suppress(OSError):
        encoding = sys.stderr.encoding
        _capture = _Capture(os.dup(2))
        own = os.dup(2)
        sys.stderr = open(own, "w", 1, encoding, "backslashreplace")  # noqa: SIM115  as above


def watched(decode: Callable[[], Value]) -> tuple[Value, bool]:
    """Run a decoder.

    Args:
        decode: may be called twice: where others run at the same time, once more alone.

    Returns:
        Its result, and whether it complained; False unless `separate` was called.
    """
    if _capture is None:
        return decode(), False
    with _capture.running():
        before = _capture.size()
        value = decode()
        if _capture.size() == before:
            return value, False
    with _capture.running(alone=True):
        before = _capture.size()
        return decode(), _capture.size() > before
