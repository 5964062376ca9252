"""Ratios by round, targets, tables and the JSON file, by hand."""

import json

import pytest

from utils.benchmark.report import as_json, as_markdown, as_text, number, summary
from utils.benchmark.rows import Row, Section, Target, per_second, ratio_of
from utils.core.timing import Stat


def sections() -> list[Section]:
    naive = [100.0, 200.0, 400.0]
    ours = [50.0, 50.0, 400.0]
    rows = [
        Row("train.naive", "naive step", per_second(naive, 16), "pictures/s"),
        Row(
            "train.epoch.bf16",
            "whole epoch",
            per_second(ours, 16),
            "pictures/s",
            ratio_of(naive, ours),
            "naive",
            gflops=1234.5678,
            share=0.254,
            target=Target(3.5, of="ratio"),
        ),
        Row(
            "train.share.loss",
            "share",
            Stat.of([2.0, 2.5, 2.75]),
            "%",
            target=Target(3.0, at_least=False),
        ),
    ]
    return [Section("train", "side by side", rows, ["said beside it"])]


def test_rates_and_ratios_are_taken_round_by_round():
    assert per_second([100.0, 200.0, 400.0], 16) == Stat(80.0, 60.0, 120.0, 3)
    found = ratio_of(
        [100.0, 200.0, 400.0], [50.0, 50.0, 400.0]
    )  # 2, 4, 1: the median of ratios, not of medians
    assert found == Stat(2.0, 1.5, 3.0, 3)


def test_a_target_is_about_what_it_says():
    faster = Stat.of([2.0])
    row = Row("k", "w", Stat.of([10.0]), "ms", faster, "loop", target=Target(5.0, at_least=False))
    assert row.aimed == 10.0 and row.met is False
    row = Row("k", "w", Stat.of([10.0]), "ms", faster, "loop", target=Target(2.0, of="ratio"))
    assert row.aimed == 2.0 and row.met is True
    assert Row("k", "w", faster, "ms", target=Target(2.0, at_least=False)).met is True
    assert Row("k", "w", faster, "ms").met is None


def test_the_text_table():
    assert as_text(sections()[0]).splitlines() == [
        "train: side by side",
        "             median [quartiles]              ratio [quartiles]     GFLOP/s  of peak  target",
        "-" * 97,
        "naive step   80 [60 to 120]      pictures/s",
        "whole epoch  320 [180 to 320]    pictures/s  2 [1.5 to 3] x naive  1,235    25 %     ≥ 3.5 MISSED",
        "share        2.5 [2.25 to 2.62]  %                                                   ≤ 3 met",
        "  said beside it",
    ]


def test_the_markdown_table():
    lines = as_markdown(sections()[0]).splitlines()
    assert lines[0] == "## train: side by side"
    assert (
        lines[2] == "|  | median [quartiles] |  | ratio [quartiles] | GFLOP/s | of peak | target |"
    )
    assert lines[3].count("---:") == 6
    assert (
        lines[5]
        == "| whole epoch | 320 [180 to 320] | pictures/s | 2 [1.5 to 3] x naive | 1,235 | 25 % | ≥ 3.5 MISSED |"
    )
    assert lines[-1] == "- said beside it"
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


def test_a_missed_target_is_named():
    assert summary(sections()) == "targets met: 1 of 2; missed: train.epoch.bf16 (2, ≥ 3.5)"
    assert (
        summary([Section("gemm", "", [Row("g", "g", Stat.of([1.0]), "")])]) == "targets met: 0 of 0"
    )


def test_the_json_file():
    found = json.loads(
        json.dumps(as_json(sections(), {"command": "c", "machine": {}, "settings": {}}, 12.34))
    )
    assert found.keys() == {"command", "machine", "settings", "sections", "targets", "seconds"}
    assert found["seconds"] == 12.3
    assert found["targets"] == {"met": ["train.share.loss"], "missed": ["train.epoch.bf16"]}
    train = found["sections"]["train"]
    assert (train["title"], train["notes"]) == ("side by side", ["said beside it"])
    assert train["rows"][1] == {
        "key": "train.epoch.bf16",
        "what": "whole epoch",
        "unit": "pictures/s",
        "value": {"median": 320.0, "q1": 180.0, "q3": 320.0, "n": 3},
        "ratio": {"median": 2.0, "q1": 1.5, "q3": 3.0, "n": 3},
        "over": "naive",
        "gflops": 1234.57,
        "share_of_peak": 0.254,
        "target": {"bound": 3.5, "at_least": True, "of": "ratio", "met": False},
    }
    plain = train["rows"][0]
    assert [plain[key] for key in ("ratio", "over", "gflops", "share_of_peak", "target")] == [
        None
    ] * 5


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
    assert number(value) == text
