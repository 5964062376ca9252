"""A benchmark of small pictures."""

from collections.abc import Iterator

import pytest

from utils.benchmark.bench import Bench, Settings, make_config
from utils.core.timing import Budget

TINY = ("device=cpu", "precision=fp32", "threads=1")


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """The embedded data at 64x64, two rounds, float32."""
    settings = Settings(
        make_config(None, None, TINY, quick=True), effort=Budget(0.0, 2, 2), quick=True
    )
    with Bench(settings) as made:
        yield made
