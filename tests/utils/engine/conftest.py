"""Comparison of training states; training without plots."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.robustness.kill_chains import difference


def _compare(first: Any, second: Any, where: str) -> None:
    found = difference(first, second, where, ignored=("seconds", "config"))
    assert not found, found


@pytest.fixture(scope="session")
def assert_same() -> Callable[[Any, Any, str], None]:
    """`assert_same(first, second, name)`: equal bit for bit but for times and configuration."""
    return _compare


@pytest.fixture
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plotting would take longer than the epoch."""
    monkeypatch.setattr("utils.engine.log.plot_training_curves", lambda history, path: None)
