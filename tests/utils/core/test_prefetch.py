"""Batches made ahead of their use."""

import threading
from collections.abc import Iterator

import pytest

from utils.core.bounded_queue import PREFETCH_DEPTH, prefetch


def test_items_come_in_order() -> None:
    assert list(prefetch(iter(range(50)))) == list(range(50))


def test_they_are_made_before_they_are_asked_for_but_not_without_limit() -> None:
    made, reached = [], threading.Event()

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            if number == PREFETCH_DEPTH + 1:
                reached.set()
            yield number

    source = prefetch(items())
    assert next(source) == 0
    assert reached.wait(10)
    assert len(made) <= PREFETCH_DEPTH + 3
    source.close()


def test_an_error_reaches_the_consumer_after_what_came_before() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    source = prefetch(items())
    assert next(source) == 1
    with pytest.raises(ValueError, match="broken"):
        next(source)


def test_a_consumer_that_leaves_ends_the_thread() -> None:
    before = threading.active_count()
    source = prefetch(iter(range(1000)))
    next(source)
    source.close()
    assert threading.active_count() == before
