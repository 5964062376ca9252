"""The queue between threads: bounded, and it carries the end and errors."""

import pytest

from utils.core.bounded_queue import BoundedQueue


def test_channel_newest_drops_the_oldest():
    channel: BoundedQueue[int] = BoundedQueue(2, newest=True)
    assert all(channel.put(value) for value in range(5))
    channel.close()
    assert list(channel) == [3, 4]
    assert not channel.put(9) and channel.take() is None


def test_what_was_put_is_read_before_the_error():
    channel: BoundedQueue[int] = BoundedQueue(3)
    channel.put(1)
    channel.close(RuntimeError("boom"))
    items = iter(channel)
    assert next(items) == 1
    with pytest.raises(RuntimeError, match="boom"):
        next(items)
    with pytest.raises(RuntimeError, match="boom"):
        channel.put(2)
