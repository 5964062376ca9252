"""A bounded queue between two threads, and a generator that prefetches in a thread."""

import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

POLL_SECONDS = 0.1  # longest single wait: Windows delivers Ctrl-C only between waits
PREFETCH_DEPTH = 2  # items that `prefetch` computes ahead

Item = TypeVar("Item")


class BoundedQueue(Generic[Item]):
    """A bounded queue between two threads that also signals the end and passes on errors.

    None cannot be an item.

    Iterate over it to take the items out; the iteration ends when the queue is closed and empty.

    Args:
        size: maximum number of items.
        newest: when full, drop the oldest item instead of making the producer wait.
    """

    def __init__(self, size: int, newest: bool = False) -> None:
        self._items: deque[Item] = deque(maxlen=size)
        self._changed = threading.Condition()
        self._size = size
        self._newest = newest
        self._closed = False
        self._error: BaseException | None = None

    def put(self, item: Item) -> bool:
        """Append an item, waiting for space.

        Returns:
            False if the queue is closed, and the item was dropped.

        Raises:
            BaseException: the error that the queue was closed with.
        """
        with self._changed:
            while len(self._items) >= self._size and not self._newest and not self._closed:
                self._changed.wait(POLL_SECONDS)
            self._raise_error()
            if not self._closed:
                self._items.append(item)
                self._changed.notify_all()
            return not self._closed

    def get_nowait(self) -> Item | None:
        """Take out and return the oldest item; None if the queue is empty."""
        with self._changed:
            self._changed.notify_all()
            return self._items.popleft() if self._items else None

    def close(self, error: BaseException | None = None) -> None:
        """Close the queue, from either side. Items in it can still be taken out.

        Args:
            error: raised on the other side, after the remaining items.
        """
        with self._changed:
            self._closed = True
            self._error = self._error or error
            self._changed.notify_all()

    def check(self) -> None:
        """Raise the error that the queue was closed with, if any."""
        with self._changed:
            self._raise_error()

    def _raise_error(self) -> None:
        if self._error:
            raise self._error

    def get(self, seconds: float) -> Item | None:
        """Take out and return the oldest item, waiting for it.

        Args:
            seconds: how long to wait.

        Returns:
            None if the queue is closed and empty.

        Raises:
            TimeoutError: there is no item in time.
            BaseException: the error that the queue was closed with.
        """
        end = time.monotonic() + seconds
        with self._changed:
            while not self._items and not self._closed:
                if time.monotonic() >= end:
                    raise TimeoutError
                self._changed.wait(POLL_SECONDS)
            if not self._items:
                self._raise_error()
                return None
            self._changed.notify_all()
            return self._items.popleft()

    def __iter__(self) -> Iterator[Item]:
        while (item := self.get(math.inf)) is not None:
            yield item


def prefetch(items: Iterator[Item]) -> Iterator[Item]:
    """Yield `items` in order while a thread computes the next ones; its errors are raised here."""
    queue: BoundedQueue[Item] = BoundedQueue(PREFETCH_DEPTH)

    def produce() -> None:
        try:
            for item in items:
                if not queue.put(item):
                    return
            queue.close()
        except BaseException as error:  # of any kind: the consumer raises it
            queue.close(error)

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    try:
        yield from queue
    finally:
        queue.close()
        thread.join()
