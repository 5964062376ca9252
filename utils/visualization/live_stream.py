"""Streams that may stall, drop and come back."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from utils.core.bounded_queue import BoundedQueue
from utils.core.inputs import ReadError, wait_out

if TYPE_CHECKING:
    from utils.visualization.video import Reader

Frame = tuple[np.ndarray, float | None]  # RGB uint8 (h, w, 3), seconds since the first frame


class LiveStream:
    """Frames of a stream, with a limit for each; see `utils.visualization.video.Reader`.

    Libraries wait for a network in ways that cannot be interrupted. So each connection has a thread
    of its own, which is left behind if it does not come back in time.

    Args:
        connect: opens the stream.
        name: the stream's name, for messages.
        timeout: seconds to wait for it to open, and for each frame.
        reconnect: seconds to go on trying when it is lost; 0: not at all.
        tell: called with a line when the stream is lost, and when it is back.
        may_end: whether a stream of known length is a file, whose end is none to come back from.

    Attributes:
        is_file: whether it is such a file.

    Raises:
        ReadError: it does not open, or sends no frame in time.
    """

    def __init__(
        self,
        connect: Callable[[], "Reader"],
        name: str,
        timeout: float,
        reconnect: float,
        tell: Callable[[str], None],
        may_end: bool,
    ) -> None:
        self._connect, self._name, self._tell = connect, name, tell
        self._timeout, self._reconnect = timeout, reconnect
        self._stopped = threading.Event()
        self._connection, self._first = self._open(timeout)
        reader = self._connection.reader
        self.fps, self.frame_count = reader.fps, reader.frame_count
        self.is_file = may_end and self.frame_count is not None
        if self.is_file:
            self._reconnect = 0.0
        self._damaged = 0

    @property
    def damaged(self) -> int:
        return self._damaged + self._connection.reader.damaged

    def frames(self) -> Iterator[Frame]:
        frame: Frame | None = self._first
        while frame is not None:
            yield frame
            try:
                frame = self._connection.next(self._timeout)
                problem = "the stream has ended"
                if frame is None and not self._reconnect:
                    return
            except ReadError as error:
                if not self._reconnect:
                    raise ReadError(f"{self._name}: {error}") from None
                frame, problem = None, str(error)
            if frame is None and not self._stopped.is_set():
                frame = self._regain(problem)

    def _regain(self, problem: str) -> Frame | None:
        """Connect again; None if this reader was stopped."""
        start = time.monotonic()
        self._damaged += self._connection.reader.damaged

        def attempt() -> Frame:
            self._connection.close()
            left = self._reconnect - (time.monotonic() - start)
            self._connection, frame = self._open(min(self._timeout, max(left, 1.0)))
            return frame

        self._tell(f"{self._name}: {problem}; trying again for {self._reconnect:g} s")
        try:
            frame = wait_out(attempt, self._reconnect, lambda _: not self._stopped.is_set())
        except ReadError as error:
            if self._stopped.is_set():
                return None
            raise ReadError(
                f"{self._name}: lost, and not back within {self._reconnect:g} s: {error}"
            ) from None
        self._tell(f"{self._name}: back after {time.monotonic() - start:.1f} s")
        return frame

    def _open(self, timeout: float) -> tuple["_Connection", Frame]:
        connection = _Connection(self._connect)
        try:
            # opening has a limit of its own, but not for looking up the server's name
            frame = connection.next(2 * timeout)
            if frame is None:
                raise ReadError("it sends no frames")
        except BaseException:
            connection.close()
            raise
        return connection, frame

    def stop(self) -> None:
        """End the iteration, from another thread."""
        self._stopped.set()
        self._connection.close()

    def close(self) -> None:
        self.stop()


class _Connection:
    """A reader in a thread of its own, which also closes it."""

    reader: "Reader"  # known when the first frame is there

    def __init__(self, connect: Callable[[], "Reader"]) -> None:
        self._connect = connect
        self._queue: BoundedQueue[Frame] = BoundedQueue(1)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            with closing(self._connect()) as self.reader:
                for frame in self.reader.frames():
                    if not self._queue.put(frame):
                        return
            self._queue.close()
        except Exception as error:
            self._queue.close(error)

    def next(self, timeout: float) -> Frame | None:
        """The next frame; None at the end.

        Raises:
            ReadError: there is none in time, or reading failed.
        """
        try:
            return self._queue.get(timeout)
        except TimeoutError:
            raise ReadError(f"no frame for {timeout:g} s: the stream has stalled") from None

    def close(self) -> None:
        self._queue.close()
