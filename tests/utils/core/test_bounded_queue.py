"""The queue between threads: bounded, and it carries the end and errors."""

import pytest

from utils.core.bounded_queue import BoundedQueue


def test_channel_newest_drops_the_oldest():
    queue: BoundedQueue[int] = BoundedQueue(2, newest=True)
    assert all(queue.put(value) for value in range(5))
    queue.close()
    assert list(queue) == [3, 4]
    assert not queue.put(9) and queue.get_nowait() is None


def test_what_was_put_is_read_before_the_error():
    queue: BoundedQueue[int] = BoundedQueue(3)
    queue.put(1)
    queue.close(RuntimeError("boom"))
    items = iter(queue)
    assert next(items) == 1
    with pytest.raises(RuntimeError, match="boom"):
        next(items)
    with pytest.raises(RuntimeError, match="boom"):
        queue.put(2)
