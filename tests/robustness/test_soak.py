"""Short runs of the soak, and leaks that it must notice."""

import io
import mmap
import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.robustness import soak

STEPS = 60
kept: list[object] = []  # what leaks
released = threading.Event()


@pytest.fixture(autouse=True)
def end_leaks() -> Iterator[None]:
    """After a test, what leaked is freed."""
    released.clear()
    yield
    released.set()
    for item in kept:
        if isinstance(item, io.IOBase):
            item.close()
    kept.clear()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "count", "mib"),
    [
        (soak.train_epochs, 12, 70),  # its heap has its size after 50 epochs; a network has 24 MiB
        (soak.predict_arrays, 250, 16),
        (soak.predict_folder, 200, 16),
        (soak.predict_frames, 200, 16),
    ],
)
def test_nothing_grows(
    task: Callable[[int], None], count: int, mib: float, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(soak, "TOLERANCES", soak.TOLERANCES._replace(memory=mib))
    samples = soak.in_own_process(partial(task, count))
    assert len(samples) > 20 and samples[-1].memory > 100
    assert not soak.grows(soak.growth(samples)), soak.growth(samples)


def nothing(step: int) -> None:
    pass


def leak_memory(step: int) -> None:
    memory = mmap.mmap(-1, 2**20)  # not from the heap, which may have room left
    memory[:] = b"x" * 2**20
    kept.append(memory)


def leak_threads(step: int) -> None:
    thread = threading.Thread(target=released.wait)
    thread.start()
    kept.append(thread)


def leak_files(step: int) -> None:
    kept.append(os.fdopen(os.open(os.devnull, os.O_RDONLY)))


@pytest.mark.parametrize(
    ("leak", "found"),
    [(nothing, ""), (leak_memory, "memory"), (leak_threads, "threads"), (leak_files, "files")],
)
def test_a_leak_is_noticed(
    leak: Callable[[int], None], found: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(soak, "INTERVAL", 0.005)

    def task() -> None:
        for step in range(STEPS):
            leak(step)
            time.sleep(0.01)

    change = soak.growth(soak.sampled(task))
    grown = [
        name
        for name, value, limit in zip(change._fields, change, soak.TOLERANCES, strict=True)
        if value > limit
    ]
    assert grown == ([found] if found else []) and soak.grows(change) == bool(found)
