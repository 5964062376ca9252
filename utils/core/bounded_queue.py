"""A bounded queue between two threads, and iterating ahead with one."""

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

POLL = 0.1  # seconds between looks at a signal while waiting: Windows delivers Ctrl-C only between waits

Item = TypeVar("Item")


class BoundedQueue(Generic[Item]):
    """A bounded queue between two threads that carries the end and errors too.

    With `newest`, a full queue drops its oldest item instead of making the producer wait.
    """

    def __init__(self, size: int, newest: bool = False) -> None:
        self._items: deque[Item] = deque(maxlen=size)
        self._changed = threading.Condition()
        self._size, self._newest, self._ended = size, newest, False
        self._error: BaseException | None = None

    def put(self, item: Item) -> bool:
        """Append, waiting for room; False once the consumer has closed the channel. Raises the consumer's error."""
        with self._changed:
            while len(self._items) >= self._size and not self._newest and not self._ended:
                self._changed.wait(POLL)
            self._raise()
            if not self._ended:
                self._items.append(item)
                self._changed.notify_all()
            return not self._ended

    def close(self, error: BaseException | None = None) -> None:
        """End the channel from either side; what is in it can still be read. `error` is raised on the other side."""
        with self._changed:
            self._ended, self._error = True, self._error or error
            self._changed.notify_all()

    def take(self) -> Item | None:
        """The oldest item, or none at once when it is empty."""
        with self._changed:
            self._changed.notify_all()
            return self._items.popleft() if self._items else None

    def check(self) -> None:
        """Raise the error that the channel was closed with, if any."""
        with self._changed:
            self._raise()

    def _raise(self) -> None:
        if self._error:
            raise self._error

    def __iter__(self) -> Iterator[Item]:
        while True:
            with self._changed:
                while not self._items and not self._ended:
                    self._changed.wait(POLL)
                if not self._items:
                    self._raise()
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item


DEPTH = 2  # items that wait


def prefetch(items: Iterator[Item]) -> Iterator[Item]:
    """The items in their order, made in a thread while the last ones are used; an error there is raised here."""
    channel: BoundedQueue[Item] = BoundedQueue(DEPTH)

    def produce() -> None:
        try:
            for item in items:
                if not channel.put(item):
                    return
            channel.close()
        except BaseException as error:  # whatever it is, it belongs to the consumer
            channel.close(error)

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    try:
        yield from channel
    finally:
        channel.close()
        thread.join()
