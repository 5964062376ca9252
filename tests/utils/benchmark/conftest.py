"""A benchmark of small images."""

from collections.abc import Iterator

import pytest

from utils.benchmark.session import BenchmarkOptions, BenchmarkSession, benchmark_config
from utils.core.timing import Budget


@pytest.fixture(scope="module")
def session() -> Iterator[BenchmarkSession]:
    """The embedded data at 64x64, one round, float32."""
    words = ["device=cpu", "precision=fp32", "threads=1"]
    config = benchmark_config(None, None, words, quick=True)
    budget = Budget(0.0, 1, 1, warmup=0)
    with BenchmarkSession(BenchmarkOptions(config, budget=budget, quick=True)) as session:
        yield session
