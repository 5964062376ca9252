"""What a section of the benchmark reports: rows of medians with their spread, ratios and targets."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from utils.core.timing import Stat


@dataclass(frozen=True)
class Target:
    """A bound on the median of a row's value, or of its ratio (`of`)."""

    bound: float
    at_least: bool = True
    of: Literal["value", "ratio"] = "value"

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}"


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        key: what it is called in the JSON file, for good. what: the same for readers.
        value: in `unit`, a value for each round. ratio: to what `over` names, each round's by that round's.
        gflops: 10^9 operations a second that were reached. share: of the matrix product's rate in the same precision,
            taken in the same rounds, 0..1. target: what is aimed at.
    """

    key: str
    what: str
    value: Stat
    unit: str
    ratio: Stat | None = None
    over: str = ""
    gflops: float | None = None
    share: float | None = None
    target: Target | None = None

    @property
    def aimed(self) -> float:
        """The median that the target is about."""
        stat = (
            self.ratio if self.target and self.target.of == "ratio" and self.ratio else self.value
        )
        return stat.median

    @property
    def met(self) -> bool | None:
        """Whether the target is met; none without one."""
        if self.target is None:
            return None
        return (
            self.aimed >= self.target.bound
            if self.target.at_least
            else self.aimed <= self.target.bound
        )

    def to_json(self) -> dict[str, Any]:
        target = self.target and {**vars(self.target), "met": self.met}
        return {
            "key": self.key,
            "what": self.what,
            "unit": self.unit,
            "value": _plain(self.value),
            "ratio": _plain(self.ratio),
            "over": self.over or None,
            "gflops": None if self.gflops is None else _rounded(self.gflops),
            "share_of_peak": None if self.share is None else _rounded(self.share),
            "target": target,
        }


@dataclass(frozen=True)
class Section:
    """A table: `title` says what was measured, `notes` what has to be known beside it and what was left out."""

    name: str
    title: str
    rows: Sequence[Row]
    notes: Sequence[str] = field(default_factory=tuple)

    def to_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "rows": [row.to_json() for row in self.rows],
            "notes": list(self.notes),
        }


def per_second(times: ArrayLike, count: float = 1) -> Stat:
    """Of milliseconds in which `count` things were done each time: how many a second."""
    return Stat.of(1000 * count / np.asarray(times))


def ratio_of(first: ArrayLike, second: ArrayLike) -> Stat:
    """`first / second`, round by round."""
    return Stat.of(np.asarray(first) / np.asarray(second))


def _plain(stat: Stat | None) -> dict[str, float] | None:
    if stat is None:
        return None
    return {
        "median": _rounded(stat.median),
        "q1": _rounded(stat.low),
        "q3": _rounded(stat.high),
        "n": stat.n,
    }


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
