"""Comparisons from beginning to end: of a setting with itself, and one that is killed."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from utils.compare.analysis.comparison import Comparison
from utils.compare.planning.plan import Plan
from utils.compare.planning.request import make_plan
from utils.compare.workflow import compare
from utils.core.config import PROJECT_DIR

WAIT = 300  # seconds until a started comparison counts as stuck


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
