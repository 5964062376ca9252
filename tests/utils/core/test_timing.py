"""Turns, medians and blocks, with a clock that the test moves."""

import time

import numpy as np
import pytest

from utils.core.timing import (
    Budget,
    Stat,
    block_timed,
    interleave,
    interleaved_times,
    milliseconds,
    timed,
)


class FakeTime:
    """Stands still but where `spend` moves it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def spend(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    return FakeTime(monkeypatch)


def test_median_and_quartiles():
    assert Stat.of([4.0, 1.0, 3.0, 2.0, 10.0]) == Stat(3.0, 2.0, 4.0, 5)
    assert Stat.of([1.0, 2.0]) == Stat(1.5, 1.25, 1.75, 2)
    assert Stat.of([7]) == Stat(7.0, 7.0, 7.0, 1)


def test_each_takes_its_turn_and_warm_up_does_not_count():
    order: list[str] = []
    answers = iter(range(100))

    def clock_of(name: str):
        def run() -> float:
            order.append(name)
            return float(next(answers))

        return run

    times = interleave(
        {"a": clock_of("a"), "b": clock_of("b")}, Budget(0.0, min_rounds=3, max_rounds=3, warmup=2)
    )
    assert order == ["a", "b"] * 5
    np.testing.assert_array_equal(times["a"], [4, 6, 8])
    np.testing.assert_array_equal(times["b"], [5, 7, 9])


@pytest.mark.parametrize(
    ("budget", "rounds"),
    [
        (Budget(10.0, min_rounds=3, warmup=0), 10),
        (Budget(10.0, min_rounds=20, warmup=0), 20),
        (Budget(10.0, min_rounds=3, max_rounds=4, warmup=0), 4),
        (Budget(0.0, min_rounds=1, warmup=0), 1),
    ],
)
def test_how_long_it_measures(clock: FakeTime, budget: Budget, rounds: int):
    """A round takes a second."""
    times = interleave(
        {"a": timed(lambda: clock.spend(0.75)), "b": timed(lambda: clock.spend(0.25))}, budget
    )
    assert len(times["a"]) == len(times["b"]) == rounds
    assert times["a"] == pytest.approx(750) and times["b"] == pytest.approx(250)


def test_a_fifth_of_the_time_warms_up(clock: FakeTime):
    calls: list[int] = []

    def run() -> None:
        calls.append(1)
        clock.spend(1.0)

    assert len(interleave({"a": timed(run)}, Budget(10.0))["a"]) == 10 and len(calls) == 12


def test_a_block_is_divided_by_its_calls(clock: FakeTime):
    assert milliseconds(lambda: clock.spend(0.5), count=4) == pytest.approx(500)


def test_what_comes_before_a_block_is_not_counted(clock: FakeTime):
    measured = timed(lambda: clock.spend(0.01), count=3, before=lambda: clock.spend(5.0))
    assert measured() == pytest.approx(10) and clock.now == pytest.approx(5.03)


def test_blocks_are_as_long_as_asked_for(clock: FakeTime):
    measured = block_timed(lambda: clock.spend(0.03), block=100.0)
    assert clock.now == pytest.approx(0.06), "a call that fills caches and one that is timed"
    assert measured() == pytest.approx(30)
    assert clock.now == pytest.approx(0.06 + 0.03 + 4 * 0.03), "an untimed call, then four: 120 ms"


def test_settings_are_interleaved():
    order: list[str] = []
    times = interleaved_times(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, seconds=0.0
    )
    assert times.keys() == {"a", "b"} and order[:6] == ["a", "b"] * 3 and len(order) >= 20
