"""From cases to be timed, interleaved, to measurements and their tables."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from utils.core.timing import Budget, Clock, Stat, interleave

COLUMNS = ("", "median [quartiles]", "", "ratio [quartiles]", "GFLOP/s", "of GEMM peak", "target")


@dataclass(frozen=True)
class Target:
    """A bound on the median of a measurement's value or ratio."""

    bound: float
    at_least: bool = True
    of: Literal["value", "ratio"] = "value"

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}"


@dataclass(frozen=True)
class Case:
    """Something to time.

    Attributes:
        key: identifies it within its section.
        what: a label for readers; "" leaves it out of the table.
        clock: does the work once and returns its duration in milliseconds.
        count: amount that one call processes, in terms of the unit: images, frames, GFLOP.
        unit: "s" per call, "ms" per image, or a rate such as "images/s".
        over: key of the case that the ratio is relative to; "" for no ratio.
        target: target for the value or the ratio.
        gflop: 10^9 operations per call; 0 if not counted.
        precision: precision of the matrix product that `gflop` is compared with.
    """

    key: str
    what: str
    clock: Clock
    count: float = 1.0
    unit: str = "images/s"
    over: str = ""
    target: Target | None = None
    gflop: float = 0.0
    precision: str = ""


@dataclass(frozen=True)
class Measurement:
    """A row of a table; `utils.benchmark` explains the fields, but `key` is without the section."""

    key: str
    what: str
    unit: str
    value: Stat
    ratio: Stat | None = None
    over: str | None = None
    gflops: float | None = None
    share_of_peak: float | None = None
    target: Target | None = None

    @property
    def bounded(self) -> float:
        """The median that the target bounds."""
        on_ratio = self.target is not None and self.target.of == "ratio"
        return self.ratio.median if on_ratio and self.ratio else self.value.median

    @property
    def met(self) -> bool:
        """Whether there is no target, or it is met."""
        if self.target is None:
            return True
        if self.target.at_least:
            return self.bounded >= self.target.bound
        return self.bounded <= self.target.bound

    def cells(self) -> tuple[str, ...]:
        """The texts of `COLUMNS`."""
        return (
            self.what,
            format_stat(self.value),
            self.unit,
            f"{format_stat(self.ratio)} x {self.over}" if self.ratio else "",
            format_number(self.gflops) if self.gflops else "",
            f"{100 * self.share_of_peak:.0f}%" if self.share_of_peak else "",
            self._verdict(),
        )

    def _verdict(self) -> str:
        """The target and whether it is met; empty without a target."""
        if self.target is None:
            return ""
        return f"{self.target} met" if self.met else f"{self.target} MISSED"


@dataclass(frozen=True)
class ResultTable:
    """Results of a section, with notes on the measurement."""

    name: str
    title: str
    rows: Sequence[Measurement]
    notes: Sequence[str] = ()

    def render(self, markdown: bool = False) -> str:
        """A title, a table without the columns that are empty in every row, and the notes."""
        every_column = zip(COLUMNS, *(row.cells() for row in self.rows), strict=True)
        columns = []
        for column in every_column:
            if any(column[1:]):
                width = max(map(len, column))
                columns.append([cell.ljust(width) for cell in column])
        rows = list(zip(*columns, strict=True))
        if markdown:
            head, *lines = [f"| {' | '.join(row)} |" for row in rows]
            rule = "| --- |" + " ---: |" * (len(columns) - 1)
            notes = [f"\n- {note}" for note in self.notes]
            return "\n".join([f"## {self.name}: {self.title}\n", head, rule, *lines, *notes])
        head, *lines = ["  ".join(row).rstrip() for row in rows]
        rule = "-" * max(map(len, [head, *lines]))
        notes = [f"  {note}" for note in self.notes]
        return "\n".join([f"{self.name}: {self.title}", head, rule, *lines, *notes])

    def to_json(self) -> dict[str, Any]:
        """The section in the JSON file."""
        rows = []
        for measurement in self.rows:
            row = {**asdict(measurement), "key": f"{self.name}.{measurement.key}"}
            for name in ("value", "ratio"):
                if row[name]:
                    median, q1, q3, count = row[name].values()
                    row[name] = {"median": median, "q1": q1, "q3": q3, "n": count}
            if measurement.target:
                row["target"]["met"] = measurement.met
            rows.append(row)
        return {"title": self.title, "rows": rows, "notes": list(self.notes)}


def measure(
    cases: Sequence[Case], budget: Budget, title: str, peaks: Mapping[str, Case] | None = None
) -> tuple[list[Measurement], dict[str, np.ndarray]]:
    """Time the cases, interleaved round by round.

    Args:
        cases: the cases to time.
        budget: duration or number of rounds.
        title: title of the progress bar.
        peaks: precision -> the matrix product to time in the same rounds.

    Returns:
        The measurements, and milliseconds per call by the case's key, float64 `(rounds,)`.
    """
    peaks = peaks or {}
    clocks = {case.key: case.clock for case in cases}
    peak_clocks = {f"peak {precision}": peak.clock for precision, peak in peaks.items()}
    times = interleave({**clocks, **peak_clocks}, budget, title)
    each = {case.key: times[case.key] / case.count for case in cases}
    rows = []
    for case in cases:
        if not case.what:
            continue
        ratio = Stat.of(each[case.over] / each[case.key]) if case.over else None
        value = Stat.of(_in_unit(each[case.key], case.unit))
        gflops = share = None
        if case.gflop:
            rates = case.gflop / times[case.key]  # TFLOP/s
            gflops = 1000 * float(np.median(rates))
            if case.precision in peaks:
                peak_rates = peaks[case.precision].count / times[f"peak {case.precision}"]
                share = float(np.median(rates / peak_rates))
        columns = (ratio, case.over or None, gflops, share, case.target)
        rows.append(Measurement(case.key, case.what, case.unit, value, *columns))
    return rows, times


def _in_unit(milliseconds: np.ndarray, unit: str) -> np.ndarray:
    if unit == "ms":
        return milliseconds
    return milliseconds / 1000 if unit == "s" else 1000 / milliseconds


def rows_with_target(tables: Sequence[ResultTable], met: bool) -> dict[str, Measurement]:
    """The measurements that met their target, or those that missed it, by full key."""
    chosen = {}
    for table in tables:
        for row in table.rows:
            if row.target and row.met == met:
                chosen[f"{table.name}.{row.key}"] = row
    return chosen


def summary(tables: Sequence[ResultTable]) -> str:
    """The number of targets met, and which were missed."""
    met, missed = rows_with_target(tables, True), rows_with_target(tables, False)
    names = [f"{key} ({format_number(row.bounded)}, {row.target})" for key, row in missed.items()]
    text = f"targets met: {len(met)} of {len(met) + len(missed)}"
    return f"{text}; missed: {', '.join(names)}" if names else text


def format_stat(stat: Stat) -> str:
    """The median and, of several values, the quartiles."""
    quartiles = f" [{format_number(stat.low)} to {format_number(stat.high)}]"
    return format_number(stat.median) + (quartiles if stat.n > 1 else "")


def format_number(value: float) -> str:
    """Three digits, or the integer part."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
