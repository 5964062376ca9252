"""Folders of detections as trials: the report says what is known, mistakes are named."""

import json
from pathlib import Path

import pytest

from tests.utils.compare.foreign_files import run, write
from utils.compare.foreign.coco_truth import Truth
from utils.compare.planning.record import read_record
from utils.compare.planning.request import make_plan
from utils.compare.trials.running import read_state
from utils.compare.workflow import summarize
from utils.core.errors import UserError


def test_the_report_says_what_is_known(folder: Path, truth: Truth):
    comparison = run(folder)
    out = folder.parent / "out"
    text = (out / "report.md").read_text(encoding="utf-8")
    assert "a, b; baseline a; 3 seeds; 8 test images; look 1" in text
    assert "on 2 of 3 seeds" in text and "There is no file of a for seed 2: left out" in text
    assert "| seed-2 " not in text and "missing: a, seed 2: no file" in summarize(comparison)
    for unknown in ("parameters", "latency", "training, s", "EMA", "Cost.** Latency"):
        assert unknown not in text
    assert "4 values of video_id" in text and "in 4 groups by video_id" in text
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "none is drawn" in page and "Over the epochs" not in page and "1 trial" not in page
    assert [entry.kind for entry in read_record(out)] == ["plan", "look"]
    assert "missing" in (out / "trials.csv").read_text()


def test_prices_controls_and_seeds(folder: Path, truth: Truth):
    write(folder.parent / "out-is-beside" / "x", "")
    facts = "a: {params: 1000, gflops: 2, latency_ms: 4.5}\nb: {params: 1500, control_of: a}\n"
    write(folder / "settings.yaml", facts)
    comparison = run(folder, seeds=["0", "1"], baseline="b", group="none", margin=1.0)
    text = (folder.parent / "out" / "report.md").read_text(encoding="utf-8")
    assert "| a | 2 of 2 |" in text and "parameters | GFLOPs | latency, ms |" in text
    assert comparison.groups is None and not comparison.failed
    assert "| 4.5 |" in text and "| – |" in text and "training, s" not in text
    write(folder / "a" / "seed-1.json", [])
    again = run(folder, seeds=["0", "1"], baseline="b", group="none")
    assert again.look == 2 and again.plan.margin == 1.0 and again.results["a", 1].ap == 0


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("settings.yaml", "c: {params: 1}", "c: no such setting.*one of: a, b"),
        ("settings.yaml", "a: {param: 1}", "a: unknown key 'param'; did you mean 'params'"),
        ("settings.yaml", "a: {params: -1}", "a: params: expected"),
        ("settings.yaml", "a: {categories: {0: cel}}", "'cel' is no category.*mean 'cell'"),
        ("settings.yaml", "a: {control_of: a}", "control_of: no other setting"),
        ("a/predictions.json", "[]", "expected one seed-<n>.json"),
        ("a/seed-00.json", "[]", "expected one seed-<n>.json"),
        ("c/notes.txt", "", "c: expected detections in seed-<n>.json, found none"),
    ],
)
def test_mistakes_in_the_folder(name: str, text: str, words: str, folder: Path, truth: Truth):
    write(folder / name, text)
    with pytest.raises(UserError, match=words):
        run(folder)


def test_seeds_that_no_setting_has(folder: Path, truth: Truth):
    with pytest.raises(UserError, match=r"--seeds: no setting in .* has a file"):
        run(folder, seeds=["7"])


def test_categories_can_be_numbered_otherwise(content, folder: Path, truth: Truth):
    before = run(folder).results["a", 0].ap
    for path in (folder / "a").iterdir():
        entries = json.loads(path.read_text())
        path.write_text(
            json.dumps([{**each, "category_id": each["category_id"] - 1} for each in entries])
        )
    write(folder / "settings.yaml", "a: {categories: {0: cell, 3: nucleus}}")
    assert run(folder).results["a", 0].ap == before


def test_trainings_and_detections_do_not_mix(folder: Path, truth: Truth):
    run(folder)
    plan = make_plan("shapes.yaml", ["none", "se"], out=str(folder.parent / "out"))
    trial = plan.trials[0]
    (folder.parent / "out" / "trials" / "a").rename(folder.parent / "out" / "trials" / "none")
    with pytest.raises(UserError, match="holds foreign detections"):
        read_state(trial)
    (folder.parent / "out" / "trials" / "b" / "seed-0" / "last.pt").touch()
    with pytest.raises(UserError, match="holds a training"):
        run(folder)
