"""The kinds of files that the program reads: tiny valid ones, made here, and how each is read."""

from collections.abc import Callable
from pathlib import Path

from tests.robustness.kinds import (
    configurations,
    datasets,
    exports,
    images,
    networks,
    results,
)
from tests.robustness.kinds.kind import Kind

KINDS: dict[str, Callable[[Path], Kind]] = {
    **configurations.KINDS,
    **datasets.KINDS,
    **images.KINDS,
    **networks.KINDS,
    **exports.KINDS,
    **results.KINDS,
}
