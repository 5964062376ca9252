"""The report's four files, and the summary on the command line."""

import base64
import csv
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.stats

from tests.utils.compare.example_scores import NONE
from utils.compare.analysis.comparison import Comparison
from utils.compare.planning.plan import Plan
from utils.compare.reporting import figures, report
from utils.compare.reporting.phrases import notes, sentence
from utils.compare.reporting.report import render_markdown
from utils.compare.reporting.tables import report_tables
from utils.compare.workflow import summarize

VOID = {"meta", "img", "br", "link", "input"}


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


def test_the_conditions_are_named(scored: Callable):
    text = render_markdown(scored(none=NONE, se=NONE), "command")
    assert "scored on 'val', 8 images" in text
    assert "NMS at IoU 0.5, box voting above IoU 0.6, at most 100 per image" in text
    assert "objects marked difficult count" in text and "they are not simultaneous" in text


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
