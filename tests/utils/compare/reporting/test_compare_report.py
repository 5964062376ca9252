"""The report's four files, and what they say of settings that are the same."""

import base64
import csv
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.stats

from utils.compare.analysis import Comparison, PairSummary, analyze
from utils.compare.planning.plan import Plan, make_plan
from utils.compare.planning.record import make_entry
from utils.compare.reporting import figures, report
from utils.compare.reporting.phrases import notes, sentence
from utils.compare.reporting.report import render_html, render_markdown
from utils.compare.reporting.tables import ReportTable, report_tables
from utils.compare.statistics import paired
from utils.compare.statistics.paired import Interval
from utils.compare.trials import machine
from utils.compare.trials.latency import Latency, measure_latency
from utils.compare.trials.machine import LoadWatch
from utils.compare.workflow import compare, summarize
from utils.core.config import PROJECT_DIR, update_config

VOID = {"meta", "img", "br", "link", "input"}
WAIT = 300  # seconds until a started comparison counts as stuck


class Page(HTMLParser):
    """Well-formedness, and what the page would load."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.sources: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.sources += [
            value or "" for name, value in attrs if name in ("src", "href", "data", "srcset")
        ]

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read_page(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    assert not page.open
    return page


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_page_is_whole_and_loads_nothing(finished: tuple[Plan, Comparison]):
    path = finished[0].out / "report.html"
    page, source = read_page(path), path.read_text(encoding="utf-8")
    loaded = [item for item in page.sources if not item.startswith("#")]
    assert len(loaded) >= 3 and all(item.startswith("data:image/") for item in loaded)
    anchors = {item.removeprefix("#") for item in page.sources} - set(loaded)
    assert len(anchors) > 5 and all(f'id="{anchor}"' in source for anchor in anchors)
    source = re.sub(r'src="data:[^"]*"', "", source)
    assert not any(text in source for text in ("url(", "@import", "<script", "//"))
    text = " ".join(page.text)
    for part in (
        "Verdicts",
        "Settings",
        "Differences",
        "How these numbers are computed",
        "circle",
        "95% over images",
    ):
        assert part in text
    assert (
        "python compare.py --phi none se" in text
        and "none, se; baseline none; 2 seeds; 8 test images; look 1" in text
    )


def test_markdown_and_page_show_the_same_tables(finished: tuple[Plan, Comparison]):
    text = (finished[0].out / "report.md").read_text(encoding="utf-8")
    page = " ".join(read_page(finished[0].out / "report.html").text)
    cells = [
        cell.strip()
        for line in text.splitlines()
        if line.startswith("| ")
        for cell in line.strip("|").replace("*", "").split("|")
    ]
    assert len(cells) > 80 and all(cell in page for cell in cells if not cell.startswith("---"))


def test_tables_hold_the_means_of_the_runs(finished: tuple[Plan, Comparison]):
    plan, _ = finished
    scores = {}
    for trial in plan.trials:
        metrics = json.loads((trial.folder / "metrics.json").read_text())
        scores.setdefault(trial.setting, []).append(100 * metrics["map50_95"])
    table = {row["setting"]: row for row in rows(plan.out / "results.csv")}
    for name, values in scores.items():
        assert float(table[name]["ap"]) == pytest.approx(np.mean(values), rel=1e-4)
        assert float(table[name]["ap_std"]) == pytest.approx(np.std(values, ddof=1), rel=1e-3)
    reference = scipy.stats.ttest_rel(scores["se"], scores["none"])
    interval = reference.confidence_interval()
    found = table["se"]
    assert float(found["p"]) == pytest.approx(reference.pvalue, rel=1e-4)
    assert float(found["seeds_low"]) == pytest.approx(interval.low, rel=1e-3)
    assert (
        float(found["both_low"])
        <= min(float(found["seeds_low"]), float(found["images_low"])) + 1e-6
    )
    assert int(found["params"]) - int(table["none"]["params"]) == 43_008
    assert (
        float(found["sign_flip_least_p"]) == 0.5
        and found["verdict"] == "no difference that these runs can show"
    )
    assert len(rows(plan.out / "trials.csv")) == 4


def test_the_command_line_sums_up(finished: tuple[Plan, Comparison]):
    text = summarize(finished[1])
    assert (
        "se against none: too few seeds for a verdict" in text
        and "With 2 seeds there is no verdict" in text
    )
    assert str(finished[0].out / "report.html") in text


def test_latency_is_kept_until_a_trial_changes(copied: Plan, monkeypatch: pytest.MonkeyPatch):
    image, trials = np.zeros((64, 64, 3), np.uint8), copied.trials[:2]
    first = measure_latency(copied.out, trials, image)
    assert first.keys() == {"none", "se"}
    for median, (low, high) in first.values():
        assert 0 < low <= median <= high
    times = {"none": np.arange(1.0, 21.0), "se": np.full(20, 2.0)}
    monkeypatch.setattr(
        "utils.compare.trials.latency.interleaved_times", lambda calls, seconds: times
    )
    assert measure_latency(copied.out, trials, image) == first
    (trials[0].folder / "trial.json").touch()
    # the 6th and the 15th of 20: below the 6th are fewer than half with a probability of 2.1%
    again = {"none": (10.5, (6.0, 15.0)), "se": (2.0, (2.0, 2.0))}
    assert measure_latency(copied.out, trials, image) == again
    record = json.loads((copied.out / "latency.json").read_text(encoding="utf-8"))
    assert record["ms"] == {"none": 10.5, "se": 2.0}


def pair(mean: float, spread: float, finished: tuple[Plan, Comparison]) -> PairSummary:
    """A pair of five seeds with these differences."""
    values = mean + spread * scipy.stats.zscore(np.arange(5), ddof=1)
    ap = paired.paired_difference(values)
    return replace(finished[1].pairs[0], ap=ap, corrected_p=ap.p)


def test_the_sentence_says_what_was_measured(finished: tuple[Plan, Comparison]):
    clear = replace(pair(2.0, 0.3, finished), verdict="better", combined=Interval(1.0, 3.0))
    assert sentence(clear) == (
        "se is better than none by 2.00 AP (on 2 of 2 seeds). 95% interval for new seeds and new"
        " images +1.00 to +3.00, for new seeds on these images +1.63 to +2.37; corrected p < 0.001."
    )
    text = sentence(replace(clear, combined=Interval(-1.0, 5.0)))
    assert "on others it may not" in text and "−1.00 to +5.00" in text
    vague = replace(pair(0.1, 2.0, finished), needed=34, needed_range=(13, None))
    text = sentence(vague)
    assert f"{paired.NO_DIFFERENCE} (+0.10 AP" in text
    assert (
        "34 seeds would be needed (13 to more than 1000, as 5 seeds do not determine the spread"
        " more precisely)" in text
    )
    text = sentence(replace(vague, needed=3, needed_range=(3, 3)))
    assert text.endswith("3 seeds would be needed.")


NONE = [30.0, 30.3, 29.8, 30.1, 29.9, 30.2]


@pytest.mark.parametrize(
    ("ap", "combined", "words"),
    [
        (
            [30.1, 30.2, 29.9, 30.2, 29.7, 30.3],
            Interval(-0.5, 0.6),
            "se and none are practically equal: they differ by less than 1 AP (+0.02 AP on 6 of 6"
            " seeds).|That holds on new images, too",
        ),
        (
            [30.1, 30.2, 29.9, 30.2, 29.7, 30.3],
            Interval(-0.5, 1.2),
            "se and none are practically equal|on others the difference may be larger",
        ),
        (
            [30.4, 30.8, 30.2, 30.6, 30.3, 30.7],
            Interval(0.1, 0.8),
            "se is better than none by 0.45 AP, but by less than the margin of 1 AP",
        ),
        (
            [32.4, 30.0, 28.2, 33.6, 30.3, 30.7],
            Interval(-2.0, 3.0),
            "se against none: undecided (+0.82 AP|seeds would be needed",
        ),
    ],
)
def test_four_verdicts_with_a_margin(
    ap: list[float], combined: Interval, words: str, scored: Callable[..., Comparison]
):
    comparison = scored(margin=1.0, none=NONE, se=ap)
    text = sentence(replace(comparison.pairs[0], combined=combined))
    assert all(part in text for part in words.split("|"))
    page = render_html(comparison, "command")
    assert "a margin of 1 AP was declared" in page and ">corrected p of 1 AP</a>" in page


def settings_rows(comparison: Comparison) -> dict[str, list[str]]:
    table = report_tables(comparison)[0]
    return {row[0]: row for row in table.rows}


def test_a_training_time_is_shown_where_the_machine_was_not_shared(scored: Callable):
    comparison = scored(none=NONE, se=NONE)
    assert settings_rows(comparison)["se"][-1] == "–"
    alone = {key: replace(each, is_alone=True) for key, each in comparison.results.items()}
    alone["se", 3] = comparison.results["se", 3]
    args = comparison.plan, list(alone.values()), {}, latencies(comparison), comparison.splits
    rows = settings_rows(analyze(*args, resamples=10))
    assert rows["none"][-1] == "60" and rows["se"][-1] == "–"
    assert rows["none"][-2] == "1.0 (0.9 to 1.2)"


def latencies(comparison: Comparison) -> dict[str, Latency]:
    return {each.name: Latency(each.latency, each.latency_interval) for each in comparison.settings}


def test_others_on_the_machine_are_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    counters = tmp_path / "stat"

    def count(seconds: float) -> None:
        """As if all processes had used the processor this long."""
        ticks = int((seconds + sum(os.times()[:4])) * os.sysconf("SC_CLK_TCK"))
        counters.write_text(f"cpu  {ticks} 0 0 999 5 0 0 0 0 0\ncpu0 1 1\n")

    monkeypatch.setattr(machine, "STATISTICS", counters)
    monkeypatch.setattr(machine.time, "monotonic", lambda: clock[0])
    clock = [0.0]
    count(5)
    watch = LoadWatch()
    clock[0] = 100.0
    count(10)
    assert watch.is_alone()
    count(30)  # a quarter of a core
    assert not watch.is_alone()
    counters.unlink()
    assert not LoadWatch().is_alone()


def test_best_values_are_bold_in_both_files(scored: Callable):
    comparison = scored(none=NONE, se=[value + 1 for value in NONE])
    assert '<td class="best">31.05 ± 0.19</td>' in render_html(comparison, "command")
    text = render_markdown(comparison, "command")
    assert "| **31.05 ± 0.19** |" in text and "| 30.05 ± 0.19 |" in text
    same = scored(none=NONE, se=NONE)
    assert not report_tables(same)[0].best


def test_what_makes_a_pairing_partial_is_noted(scored: Callable):
    comparison = scored(none=NONE, se=NONE)
    assert notes(comparison) == []
    none, se = comparison.plan.settings
    changes = {"phi": "se", "augment.mosaic": 0.0, "eval.nms_iou": 0.7, "train.lr": 0.1}
    se = replace(se, config=update_config(se.config, changes))
    plan = replace(comparison.plan, settings=(none, se))
    (note,) = notes(replace(comparison, plan=plan))
    assert note.startswith("se differs from none in augment.mosaic, eval.nms_iou: ")


def test_equality_of_networks_that_learned_nothing_is_noted(scored: Callable):
    little = [value / 100 for value in NONE]
    (note,) = notes(scored(margin=1.0, none=little, se=little))
    assert note.startswith("The margin of 1 AP is large against the AP reached, 0.30: ")
    assert notes(scored(margin=1.0, none=NONE, se=NONE)) == []


def test_an_ap_that_still_rises_is_noted(scored: Callable):
    comparison = scored(none=NONE, se=NONE)
    curve = [{"epoch": epoch, "map50_95": 0.05 * epoch} for epoch in range(1, 13)]
    results = dict(comparison.results)
    results["se", 2] = replace(results["se", 2], curve=curve)
    args = comparison.plan, list(results.values()), {}, latencies(comparison), comparison.splits
    (note,) = notes(analyze(*args, resamples=10))
    assert note.startswith("AP was still rising at the last epoch in trainings of se (1 of 6)")


def test_declared_looks_are_shown(scored: Callable):
    """Of four looks, se has a verdict at the second, eca at the third, ca at none."""
    ap = {
        "se": [value + 2 for value in NONE],
        "eca": [30.1, 30.2, 29.9, 30.2, 29.7, 30.3],
        "ca": [32.4, 30.0, 28.2, 33.6, 30.3, 30.7],
    }
    ap["se"][0] += 0.1
    declared = {"margin": 1.0, "looks": (3, 5, 6, 12), "stops": {("se", "none"): 5}}
    comparison = scored(**declared, none=NONE, **ap)
    texts = [sentence(pair) for pair in comparison.pairs]
    assert texts[0].startswith("se is better than none by 2.02 AP (on 5 of 5 seeds).")
    assert texts[0].endswith("Stopped at look 2 of 4, 5 seeds: better.")
    assert texts[1].endswith("Stopped at look 3 of 4, 6 seeds: practically equal.")
    assert texts[2].endswith("No verdict yet at look 3 of 4, 6 seeds: it goes on, up to 12 seeds.")
    assert notes(comparison) == []
    text = render_markdown(comparison, "command")
    assert "6 seeds; 8 test images; look 3 of 4\n" in text
    assert "Look 3 of 4: 23 trials so far, of 48 at most." in text
    (table,) = [table for table in report_tables(comparison) if table.heading == "Looks"]
    assert [row[:2] + row[3:] for row in table.rows] == [
        ["1", "3", "12", "3 of 3"],
        ["2", "5", "20", "2 of 3"],
        ["3", "6", "23", "1 of 3"],
        ["4", "12", "–", "–"],
    ]
    assert table.rows[0][2] == "–"  # with three comparisons, a verdict needs five seeds
    assert table.rows[3][2] == "0.013 to 0.04"
    written = list(csv.DictReader(report.results_csv(comparison).splitlines()))
    assert [(row["seeds_planned"], row["look"]) for row in written[1:3]] == [("5", "2"), ("6", "3")]
    last = scored(**{**declared, "looks": (5, 6)}, none=NONE, **ap)
    text = summarize(last)
    assert "Without a verdict after look 2 of 2, 6 seeds, the last." in text
    assert "Look 2 of 2, the end: 23 trials instead of 24, 1 saved." in text


def test_a_second_look_is_noted(scored: Callable):
    first = scored(none=NONE[:5], se=NONE[:5])
    second = scored([make_entry("look", first.plan, first.tests)], none=NONE, se=NONE)
    assert notes(second)[0].startswith("This is look 2 at results in this folder. The correction")
    assert "look 2" in render_markdown(second, "command").splitlines()[2]


def test_the_conditions_are_named(scored: Callable):
    text = render_markdown(scored(none=NONE, se=NONE), "command")
    assert "scored on 'val', 8 images" in text
    assert "NMS at IoU 0.5, box voting above IoU 0.6, at most 100 per image" in text
    assert "objects marked difficult count" in text and "they are not simultaneous" in text


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


def test_every_plot_is_an_image(
    finished: tuple[Plan, Comparison], fast_reports: pytest.MonkeyPatch
):
    fast_reports.undo()
    plots = figures.draw_all(finished[1])
    embedded = report._figures(plots)
    assert embedded.keys() == {"Settings", "Differences", "Every training, AP"}
    for image in embedded.values():
        data = base64.b64decode(image.source.removeprefix("data:image/png;base64,"))
        assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).std() > 5
    assert all(b"<svg" in plot["svg"] for plot in plots.values())
    assert all(plot["pdf"].startswith(b"%PDF") for plot in plots.values())
    assert figures.cost(finished[1]) == plots["cost"]


# the same setting under two names


@pytest.mark.slow
def test_a_setting_does_not_differ_from_itself(tiny_words: tuple[str, ...], tmp_path: Path):
    path = tmp_path / "same.yaml"
    path.write_text("none: {}\nagain: {phi: none}\n", encoding="utf-8")
    plan = make_plan(
        "shapes.yaml",
        settings_file=str(path),
        seeds=[0, 1],
        out=str(tmp_path / "out"),
        overrides=tiny_words,
    )
    comparison = compare(plan, [])
    [again] = comparison.pairs
    assert set(again.differences.values()) == {0.0} and again.images == (0.0, 0.0) == again.combined
    assert not again.verdict.startswith(("better", "worse"))


# killing


def start(out: Path, log: Path, overrides: Sequence[str]) -> subprocess.Popen:
    words = [
        "--config",
        "shapes.yaml",
        "--phi",
        "none",
        "se",
        "--seeds",
        "0",
        "1",
        "--out",
        str(out),
        *overrides,
    ]
    with log.open("a") as file:
        command = [sys.executable, str(PROJECT_DIR / "compare.py"), *words]
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)


@pytest.mark.slow
def test_a_comparison_killed_three_times_ends_with_the_tables_of_an_undisturbed_one(
    finished: tuple[Plan, Comparison],
    tables: Callable[[Path], list[list[str]]],
    tiny_words: tuple[str, ...],
    tmp_path: Path,
):
    out, log, end = tmp_path / "out", tmp_path / "log.txt", time.monotonic() + WAIT
    moments = {
        "between trainings": "trials/none/seed-0/metrics.json",
        "inside a training": "trials/se/seed-1/last.pt",
        "in the report": "latency.json",
    }
    for moment, file in moments.items():
        with start(out, log, tiny_words) as process:
            try:
                while not (out / file).exists():
                    assert process.poll() is None and time.monotonic() < end, log.read_text()
                    time.sleep(0.005)
            finally:
                process.kill()
        assert not (out / "results.csv").exists(), moment
    with start(out, log, tiny_words) as process:
        assert process.wait(WAIT) == 0, log.read_text()
    assert tables(out) == tables(finished[0].out)
    assert log.read_text().count("resuming") == 1
