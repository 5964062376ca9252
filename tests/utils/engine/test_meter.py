"""Sums of the losses, also as a GPU would deliver them: late."""

import math
from types import SimpleNamespace

import pytest
import torch

from utils.engine.meter import LossMeter

CPU = torch.device("cpu")


def meter() -> LossMeter:
    made = LossMeter(("loss", "box"), CPU)
    made.start({}, 0)
    return made


def test_sums_are_those_of_doubles() -> None:
    values = torch.rand(1000, 2)
    own = meter()
    for row in values:
        own.add(row)
    expected = [math.fsum(column) for column in values.double().T.tolist()]
    assert list(own.sums().values()) == pytest.approx(expected, rel=1e-12)
    assert own.latest() == (own.sums(), 1000)


def test_it_goes_on_from_where_it_was() -> None:
    own = meter()
    own.start({"loss": 3.0, "box": 1.0}, 2)
    own.add(torch.tensor([1.0, 0.5]))
    assert own.latest() == ({"loss": 4.0, "box": 1.5}, 3)


def test_on_a_gpu_the_latest_is_what_has_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    own, arrived = meter(), [False]
    own._synchronous = False
    event = SimpleNamespace(query=lambda: arrived[0])
    monkeypatch.setattr(own, "_copy", lambda: (own._total.clone(), event, own._steps))
    own.add(torch.tensor([1.0, 2.0]))
    assert own.latest() == ({"loss": 0.0, "box": 0.0}, 0)
    own.add(torch.tensor([1.0, 2.0]))
    arrived[0] = True
    assert own.latest() == ({"loss": 1.0, "box": 2.0}, 1)
    assert own.latest() == ({"loss": 2.0, "box": 4.0}, 2)
    assert own.sums() == {"loss": 2.0, "box": 4.0}
