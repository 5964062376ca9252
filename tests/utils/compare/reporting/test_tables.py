"""Tables: training times, best values in bold, names that look like markup."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.utils.compare.example_scores import NONE, analyze_again
from utils.compare.analysis.comparison import Comparison
from utils.compare.planning.plan import Plan
from utils.compare.reporting import report
from utils.compare.reporting.report import render_html, render_markdown
from utils.compare.reporting.table import ReportTable
from utils.compare.reporting.tables import report_tables


def settings_rows(comparison: Comparison) -> dict[str, list[str]]:
    table = report_tables(comparison)[0]
    return {row[0]: row for row in table.rows}


def test_a_training_time_is_shown_where_the_machine_was_not_shared(scored: Callable):
    comparison = scored(none=NONE, se=NONE)
    assert settings_rows(comparison)["se"][-1] == "–"
    alone = {key: replace(each, is_alone=True) for key, each in comparison.results.items()}
    alone["se", 3] = comparison.results["se", 3]
    rows = settings_rows(analyze_again(comparison, alone.values()))
    assert rows["none"][-1] == "60" and rows["se"][-1] == "–"
    assert rows["none"][-2] == "1.0 (0.9 to 1.2)"


def test_best_values_are_bold_in_both_files(scored: Callable):
    comparison = scored(none=NONE, se=[value + 1 for value in NONE])
    assert '<td class="best">31.05 ± 0.19</td>' in render_html(comparison, "command")
    text = render_markdown(comparison, "command")
    assert "| **31.05 ± 0.19** |" in text and "| 30.05 ± 0.19 |" in text
    same = scored(none=NONE, se=NONE)
    assert not report_tables(same)[0].best


def test_names_cannot_break_a_table(
    finished: tuple[Plan, Comparison], monkeypatch: pytest.MonkeyPatch
):
    table = ReportTable("Names", "", ["a|b", "<i>"], [["x|y", "<b>&"]], [""])
    monkeypatch.setattr(report, "report_tables", lambda comparison: [table])
    lines = render_markdown(finished[1], "command").splitlines()
    start = lines.index("## Names") + 2
    assert lines[start : start + 3] == [
        "| a\\|b | <i> |",
        "| --- | ---: |",
        "| x\\|y | <b>& |",
    ]
    assert "<td>&lt;b&gt;&amp;</td>" in render_html(finished[1], "command")
