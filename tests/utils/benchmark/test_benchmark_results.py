"""Ratios within a round, shares of the peak, targets, tables and JSON, by hand."""

import pytest

from utils.benchmark.results import (
    Case,
    Measurement,
    ResultTable,
    Target,
    format_number,
    measure,
    rows_with_target,
    summary,
)
from utils.core.timing import Budget, Clock, Stat

PEAK = Case("bf16.1000", "product", lambda: 0.5, count=2.0)


def scripted(*milliseconds: float) -> Clock:
    answers = iter(milliseconds)
    return lambda: next(answers)


@pytest.fixture(scope="module")
def table() -> ResultTable:
    """A baseline of 100, 200, 400 ms per batch of 16 beside epochs of two batches."""
    base = Case("baseline", "baseline step", scripted(100, 200, 400), 16)
    epoch = Case(
        "epoch.bf16",
        "whole epoch",
        scripted(100, 100, 800),
        32,
        over="baseline",
        gflop=200.0,
        precision="bf16",
        target=Target(3.5, of="ratio"),
    )
    hidden = Case("profile", "", scripted(1, 2, 3))
    rows, times = measure([base, epoch, hidden], Budget(0, 3, 3, 0), "train", {"bf16": PEAK})
    assert times["profile"].tolist() == [1, 2, 3]
    loss = Stat.of([2.0, 2.5, 2.75])
    target = Target(3.0, at_least=False)
    rows.append(Measurement("share.loss", "share", "%", loss, target=target))
    return ResultTable("train", "side by side", rows, ["a note"])


def test_rates_ratios_and_shares_are_taken_within_each_round(table: ResultTable):
    base, epoch, _ = table.rows
    assert base.value == Stat(80.0, 60.0, 120.0, 3)
    assert epoch.value == Stat(320.0, 180.0, 320.0, 3)
    assert epoch.ratio == Stat(2.0, 1.5, 3.0, 3), "the median of 2, 4, 1: not the medians' ratio"
    assert epoch.gflops == pytest.approx(2000), "200 GFLOP in 100 ms"
    assert epoch.share_of_peak == pytest.approx(0.5), "of 2 GFLOP in 0.5 ms"


@pytest.mark.parametrize(("unit", "value"), [("images/s", 40.0), ("ms", 25.0), ("s", 0.025)])
def test_units(unit: str, value: float):
    rows, _ = measure([Case("k", "what", scripted(100), 4, unit)], Budget(0, 1, 1, 0), "title")
    assert rows[0].value == Stat(value, value, value, 1)


def test_a_target_bounds_the_value_or_the_ratio():
    def row(target: Target) -> Measurement:
        value, ratio = Stat.of([10.0]), Stat.of([2.0])
        return Measurement("key", "label", "ms", value, ratio, "loop", target=target)

    assert not row(Target(5.0, at_least=False)).met and row(Target(5.0)).met
    assert row(Target(2.0, of="ratio")).met and not row(Target(2.5, of="ratio")).met


def test_the_text_table(table: ResultTable):
    assert table.render().splitlines() == [
        "train: side by side",
        "               median [quartiles]            ratio [quartiles]        GFLOP/s"
        "  of GEMM peak  target",
        "-" * 105,
        "baseline step  80 [60 to 120]      images/s",
        "whole epoch    320 [180 to 320]    images/s  2 [1.5 to 3] x baseline  2,000"
        "    50%           ≥ 3.5 MISSED",
        "share          2.5 [2.25 to 2.62]  %" + 57 * " " + "≤ 3 met",
        "  a note",
    ]


def test_the_markdown_table(table: ResultTable):
    lines = table.render(markdown=True).splitlines()
    assert lines[0] == "## train: side by side"
    assert [cell.strip() for cell in lines[5].strip("|").split("|")] == [
        "whole epoch",
        "320 [180 to 320]",
        "images/s",
        "2 [1.5 to 3] x baseline",
        "2,000",
        "50%",
        "≥ 3.5 MISSED",
    ]
    assert lines[3].count("---:") == 6 and lines[-2:] == ["", "- a note"]
    assert {line.count("|") for line in lines if line.startswith("|")} == {8}


def test_missed_targets_are_named(table: ResultTable):
    assert summary([table]) == "targets met: 1 of 2; missed: train.epoch.bf16 (2, ≥ 3.5)"
    assert list(rows_with_target([table], met=True)) == ["train.share.loss"]
    assert list(rows_with_target([table], met=False)) == ["train.epoch.bf16"]
    assert summary([]) == "targets met: 0 of 0"


def test_the_json_rows(table: ResultTable):
    base, epoch, _ = table.to_json()["rows"]
    assert epoch == {
        "key": "train.epoch.bf16",
        "what": "whole epoch",
        "unit": "images/s",
        "value": {"median": 320.0, "q1": 180.0, "q3": 320.0, "n": 3},
        "ratio": {"median": 2.0, "q1": 1.5, "q3": 3.0, "n": 3},
        "over": "baseline",
        "gflops": 2000.0,
        "share_of_peak": 0.5,
        "target": {"bound": 3.5, "at_least": True, "of": "ratio", "met": False},
    }
    empty = ("ratio", "over", "gflops", "share_of_peak", "target")
    assert base.keys() == epoch.keys() and all(base[key] is None for key in empty)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (123456.7, "123,457"),
        (99.96, "100"),
        (45.678, "45.7"),
        (0.012345, "0.0123"),
        (-12.5, "-12.5"),
    ],
)
def test_numbers_have_three_digits(value: float, text: str):
    assert format_number(value) == text
