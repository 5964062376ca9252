"""Latency is measured once per trial."""

import json

import numpy as np
import pytest

from utils.compare.planning.plan import Plan
from utils.compare.trials.latency import measure_latency


def test_latency_is_kept_until_a_trial_changes(copied: Plan, monkeypatch: pytest.MonkeyPatch):
    image, trials = np.zeros((64, 64, 3), np.uint8), copied.trials[:2]
    first = measure_latency(copied.out, trials, image)
    assert first.keys() == {"none", "se"}
    for median, (low, high) in first.values():
        assert 0 < low <= median <= high
    times = {"none": np.arange(1.0, 21.0), "se": np.full(20, 2.0)}
    monkeypatch.setattr(
        "utils.compare.trials.latency.interleaved_times", lambda calls, seconds: times
    )
    assert measure_latency(copied.out, trials, image) == first
    (trials[0].folder / "trial.json").touch()
    # the 6th and the 15th of 20: below the 6th are fewer than half with a probability of 2.1%
    again = {"none": (10.5, (6.0, 15.0)), "se": (2.0, (2.0, 2.0))}
    assert measure_latency(copied.out, trials, image) == again
    record = json.loads((copied.out / "latency.json").read_text(encoding="utf-8"))
    assert record["ms"] == {"none": 10.5, "se": 2.0}
