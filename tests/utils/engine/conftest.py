"""Comparison of training states."""

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor, equal


def _compare(first: Any, second: Any, where: str) -> None:
    if isinstance(first, Tensor):
        assert equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first.keys() - {"seconds", "config"}:
            _compare(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), where
        for index, pair in enumerate(zip(first, second, strict=True)):
            _compare(*pair, f"{where}[{index}]")
    else:
        assert first == second, where


@pytest.fixture(scope="session")
def assert_same() -> Callable[[Any, Any, str], None]:
    """`assert_same(first, second, name)`: equal bit for bit but for times and configuration."""
    return _compare
