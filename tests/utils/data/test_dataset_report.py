import pytest

from utils.data.dataset_report import RULES, DatasetReport


def test_report_keeps_few_examples_and_states_the_rule():
    report = DatasetReport()
    for index in range(10):
        report.note("box empty", f"file{index}", 2)
    [_, line] = report.lines()
    assert "20 x box empty" in line
    assert RULES["box empty"] in line
    assert report.examples["box empty"] == ["file0", "file1", "file2"]
    report.note("box empty", "x", 0)
    assert report.counts["box empty"] == 20
    with pytest.raises(KeyError):
        report.note("no such rule", "x")
