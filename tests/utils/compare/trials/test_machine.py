"""Whether a training had the machine for itself."""

import os
from pathlib import Path

import pytest

from utils.compare.trials import machine
from utils.compare.trials.machine import LoadWatch


def test_others_on_the_machine_are_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    counters = tmp_path / "stat"

    def count(seconds: float) -> None:
        """As if all processes had used the processor this long."""
        ticks = int((seconds + sum(os.times()[:4])) * os.sysconf("SC_CLK_TCK"))
        counters.write_text(f"cpu  {ticks} 0 0 999 5 0 0 0 0 0\ncpu0 1 1\n")

    monkeypatch.setattr(machine, "STATISTICS", counters)
    monkeypatch.setattr(machine.time, "monotonic", lambda: clock[0])
    clock = [0.0]
    count(5)
    watch = LoadWatch()
    clock[0] = 100.0
    count(10)
    assert watch.is_alone()
    count(30)  # a quarter of a core
    assert not watch.is_alone()
    counters.unlink()
    assert not LoadWatch().is_alone()
