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
COMPLAINT = re.compile(
    rb"Corrupt JPEG|Premature end of JPEG|Invalid SOS|Inconsistent progression|Unsupported marker|"
    rb"Unknown Adobe|Warning: unknown JFIF|libpng"
)


class _Capture:
    """Descriptor 2 is a file while a decoder runs; afterwards, other messages are passed on."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self._file = _open_file()
        self._passed = 0  # bytes that have been looked through
        self._changed = threading.Condition()
        self._running = 0
        self._waiting = 0  # for a moment in which nothing runs
        self._alone = False

    def size(self) -> int:
        """Bytes captured so far."""
        return os.fstat(self._file).st_size

    def has_complaint(self, start: int) -> bool:
        """Whether a decoder complained in what was captured after the first `start` bytes."""
        return COMPLAINT.search(self._read(start)) is not None

    def _read(self, start: int) -> bytes:
        length = self.size() - start
        return os.pread(self._file, length, start) if length > 0 else b""

    @contextmanager
    def running(self, alone: bool = False) -> Iterator[None]:
        """Capture during the block; with `alone`, no other thread is in such a block meanwhile."""
        with self._changed:
            if alone:
                self._waiting += 1
                try:
                    self._changed.wait_for(lambda: not self._running)
                finally:
                    self._waiting -= 1
            else:
                self._changed.wait_for(lambda: not self._alone and not self._waiting)
            self._alone = alone
            self._running += 1
            if self._running == 1:
                os.dup2(self._file, 2)
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
        """Pass on other messages; those of decoders stay for `has_complaint` while any runs."""
        found = self._read(self._passed)
        if self._running:
            found = found[: found.rfind(b"\n") + 1]
        for line in found.splitlines(keepends=True):
            if not COMPLAINT.match(line):
                os.write(self._terminal, line)
        self._passed += len(found)
        if not self._running and self._passed:
            os.lseek(self._file, 0, os.SEEK_SET)
            os.ftruncate(self._file, 0)
            self._passed = 0


def _open_file() -> int:
    """A descriptor of a new file without a name, in memory if possible: a disk may be full."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("stderr")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


_capture: _Capture | None = None


def separate() -> None:
    """Give Python's stderr a descriptor of its own, so that what libraries write can be told apart.

    Does nothing if stderr is not the process's own, as in a test, if there is no place for a file,
    and on Windows, where a library may have descriptors of its own.
    """
    global _capture
    if _capture is not None or sys.stderr is not sys.__stderr__ or sys.stderr is None:
        return
    if not hasattr(os, "pread"):
        return
    with suppress(OSError):
        encoding = sys.stderr.encoding
        _capture = _Capture(os.dup(2))
        own = os.dup(2)
        sys.stderr = open(own, "w", 1, encoding, "backslashreplace")  # noqa: SIM115  to the end


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
        if not _capture.has_complaint(before):
            return value, False
    with _capture.running(alone=True):
        before = _capture.size()
        return decode(), _capture.has_complaint(before)
