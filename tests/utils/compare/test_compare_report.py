"""The report's four files, and what they say of settings that are the same."""

import csv
import json
import math
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from utils.compare import stats
from utils.compare.analysis import Comparison
from utils.compare.latency import measure_latency, time_in_turns
from utils.compare.plan import Plan, make_plan
from utils.compare.running import compare, summary
from utils.compare.tables import Table
from utils.compare.wording import sentence

ROOT = Path(__file__).resolve().parents[3]
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
    assert len(page.sources) >= 3 and all(item.startswith("data:image/") for item in page.sources)
    assert "url(" not in source and "@import" not in source and "<script" not in source and "//" not in re.sub(
        r'src="data:[^"]*"', "", source
    )  # fmt: skip
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
        and "none, se; baseline none; 2 seeds; 8 test images" in text
    )


def test_markdown_and_page_show_the_same_tables(finished: tuple[Plan, Comparison]):
    text = (finished[0].out / "report.md").read_text(encoding="utf-8")
    page = " ".join(read_page(finished[0].out / "report.html").text)
    cells = [
        cell.strip()
        for line in text.splitlines()
        if line.startswith("| ")
        for cell in line.strip("|").split("|")
    ]
    assert len(cells) > 80 and all(cell in page for cell in cells if not cell.startswith("---"))


def test_tables_hold_the_means_of_the_runs(finished: tuple[Plan, Comparison]):
    plan, _ = finished
    scores = {}
    for cell in plan.cells:
        metrics = json.loads((cell.folder / "metrics.json").read_text())
        scores.setdefault(cell.variant, []).append(100 * metrics["map50_95"])
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
    assert len(rows(plan.out / "cells.csv")) == 4


def test_the_command_line_sums_up(finished: tuple[Plan, Comparison]):
    text = summary(finished[1], finished[0].out)
    assert (
        "se against none: no difference that these runs can show" in text
        and "With 2 seeds no verdict" in text
    )
    assert str(finished[0].out / "report.html") in text


def test_latency_is_kept_until_a_cell_changes(copied: Plan, monkeypatch: pytest.MonkeyPatch):
    picture, cells = np.zeros((64, 64, 3), np.uint8), copied.cells[:2]
    first = measure_latency(copied.out, cells, picture)
    assert first.keys() == {"none", "se"} and all(value > 0 for value in first.values())
    monkeypatch.setattr(
        "utils.compare.latency.time_in_turns", lambda runs: {"none": 1.0, "se": 2.0}
    )
    assert measure_latency(copied.out, cells, picture) == first
    (cells[0].folder / "cell.json").touch()
    assert measure_latency(copied.out, cells, picture) == {"none": 1.0, "se": 2.0}


def test_settings_take_turns():
    order: list[str] = []
    times = time_in_turns(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, seconds=0.0
    )
    assert times.keys() == {"a", "b"} and order[:6] == ["a", "b"] * 3 and len(order) >= 20


def pair(mean: float, spread: float, seeds: int = 5) -> stats.Paired:
    return stats.paired(mean + spread * scipy.stats.zscore(np.arange(seeds), ddof=1))


def test_the_sentence_says_what_was_found():
    clear = pair(2.0, 0.3)
    text = sentence("se", "none", clear, "better", clear.p, (1.0, 3.0), 4, (3, 9))
    assert (
        text
        == "se is better than none by 2.00 AP (95% interval over seeds +1.63 to +2.37, corrected p < 0.001)."
    )
    text = sentence("se", "none", clear, "better", clear.p, (-1.0, 5.0), 4, (3, 9))
    assert "on other ones it may not" in text and "−1.00 to +5.00" in text
    vague = pair(0.1, 2.0)
    text = sentence(
        "se",
        "none",
        vague,
        "no difference that these runs can show",
        0.9,
        (-3.0, 3.0),
        34,
        (13, None),
    )
    assert "no difference that these runs can show (+0.10 AP" in text
    assert (
        "34 seeds would be needed (13 to more than 1000, as 5 seeds tell the spread no better)"
        in text
    )


def test_names_cannot_break_a_table():
    table = Table(("a|b", "<i>"), [["x|y", "<b>&"]])
    assert table.to_markdown().splitlines()[2] == "| x\\|y | <b>& |"
    assert "<td>&lt;b&gt;&amp;</td>" in table.to_html()


# the same setting under two names


@pytest.mark.slow
def test_a_setting_does_not_differ_from_itself(tiny_words: tuple[str, ...], tmp_path: Path):
    path = tmp_path / "same.yaml"
    path.write_text("none: {}\nagain: {phi: none}\nother seeds: {seed: 10}\n", encoding="utf-8")
    plan = make_plan(
        "shapes.yaml", variants=str(path), out=str(tmp_path / "out"), overrides=tiny_words
    )
    comparison = compare(plan, [])
    again, other = comparison.pairs
    assert set(again.differences.values()) == {0.0} and again.images == (0.0, 0.0) == again.combined
    assert again.verdict.startswith("no difference")
    # other seeds are claimed to differ in one of twenty such comparisons: how often is for the calibration test
    assert all(value != 0 for value in other.differences.values()) and not math.isnan(
        other.corrected_p
    )


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
        command = [sys.executable, str(ROOT / "compare.py"), *words]
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["inside a training", "between trainings", "in the report"])
def test_a_killed_comparison_ends_with_the_tables_of_an_undisturbed_one(
    moment: str,
    finished: tuple[Plan, Comparison],
    tables: Callable[[Path], list[list[str]]],
    tiny_words: tuple[str, ...],
    tmp_path: Path,
):
    out, log, end = tmp_path / "out", tmp_path / "log.txt", time.monotonic() + WAIT
    if moment == "in the report":
        shutil.copytree(finished[0].out / "cells", out / "cells")
    ready: dict[str, Callable[[], bool]] = {
        "inside a training": lambda: (out / "cells/se/seed-0/last.pt").exists(),
        "between trainings": lambda: (out / "cells/none/seed-0/metrics.json").exists(),
        "in the report": lambda: (out / "latency.json").exists(),
    }
    with start(out, log, tiny_words) as process:
        try:
            while not ready[moment]():
                assert process.poll() is None and time.monotonic() < end, log.read_text()
                time.sleep(0.005)
        finally:
            process.kill()
    assert not (out / "results.csv").exists()
    with start(out, log, tiny_words) as process:
        assert process.wait(WAIT) == 0, log.read_text()
    assert tables(out) == tables(finished[0].out)
    assert ("resuming" in log.read_text()) == (moment == "inside a training")
