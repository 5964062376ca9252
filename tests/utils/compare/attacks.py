"""Changes to the folder of a finished comparison that `--verify` has to find."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from utils.compare.planning.plan import Plan


def edit_json(path: Path, *keys: str, value: Any) -> None:
    """Set a key of a JSON file."""
    content = section = json.loads(path.read_text(encoding="utf-8"))
    for key in keys[:-1]:
        section = section[key]
    section[keys[-1]] = value
    path.write_text(json.dumps(content), encoding="utf-8")


def edit_text(path: Path, old: str, new: str) -> None:
    """Replace the first occurrence of a text."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def _trial(plan: Plan, index: int, name: str) -> Path:
    return plan.trials[index].folder / name


def _swap(plan: Plan) -> None:
    first, second = (_trial(plan, index, "detections.npz") for index in (0, 1))
    other = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(other)


def _forge(plan: Plan) -> None:
    """Detections with other boxes."""
    path = _trial(plan, 0, "detections.npz")
    arrays = dict(np.load(path))
    arrays["boxes"] = arrays["boxes"] * np.float32(0.5)
    np.savez_compressed(path, **arrays)


def _drop_last_line(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:-1]), encoding="utf-8")


# What is done -> beginning of the first difference, relative to the folder; `|`: and of another one
ATTACKS: dict[str, tuple[Callable[[Plan], object], str]] = {
    "an AP of metrics.json": (
        lambda plan: edit_json(_trial(plan, 1, "metrics.json"), "map50_95", value=0.9),
        "trials/se/seed-0/metrics.json: map50_95: stored 0.9, computed 0.",
    ),
    "an AP of trial.json": (
        lambda plan: edit_json(_trial(plan, 0, "trial.json"), "metrics", "map50", value=0.9),
        "trials/none/seed-0/trial.json: map50: stored 0.9, computed 0.",
    ),
    "swapped detections": (
        _swap,
        "trials/none/seed-0/detections.npz: exchanged: they are those of se, seed 0"
        "|report.json: trials.none, seed 0.ap: stored",
    ),
    "forged detections": (
        _forge,
        "trials/none/seed-0/detections.npz: exchanged: they are not those that the trial wrote",
    ),
    "missing detections": (
        lambda plan: _trial(plan, 3, "detections.npz").unlink(),
        "trials/se/seed-1/detections.npz: no such file",
    ),
    "a damaged trial.json": (
        lambda plan: _trial(plan, 3, "trial.json").write_text("{"),
        "trials/se/seed-1/trial.json: not valid JSON",
    ),
    "a damaged metrics.json": (
        lambda plan: _trial(plan, 3, "metrics.json").write_text("[]"),
        "trials/se/seed-1/metrics.json: expected",
    ),
    "a number of report.json": (
        lambda plan: edit_json(
            plan.out / "report.json", "numbers", "pairs", "se against none", "ap", "mean", value=7.0
        ),
        "report.json: pairs.se against none.ap.mean: stored 7.0, computed",
    ),
    "a number of report.md": (
        lambda plan: edit_text(plan.out / "report.md", "| none | 2 of 2 |", "| none | 3 of 3 |"),
        "report.md: line ",
    ),
    "a number of report.html": (
        lambda plan: edit_text(plan.out / "report.html", "5,885,666", "5,885"),
        "report.html: line ",
    ),
    "a deleted seed": (
        lambda plan: shutil.rmtree(plan.trials[2].folder),
        "trials/none/seed-1: missing, but report.json has its result",
    ),
    "an edited plan": (
        lambda plan: edit_text(plan.out / "plan.yaml", "margin: null", "margin: 1.0"),
        "plan.yaml: edited: the record has SHA-256",
    ),
    "a missing plan": (lambda plan: (plan.out / "plan.yaml").unlink(), "plan.yaml: missing"),
    "an edited record": (
        lambda plan: edit_text(plan.out / "record.jsonl", '"margin": null', '"margin": 1.0'),
        "record.jsonl:1: edited, or lines before it were removed or added"
        "|record.jsonl: its first 2 lines are not those that report.json was made with",
    ),
    "a shortened record": (
        lambda plan: _drop_last_line(plan.out / "record.jsonl"),
        "record.jsonl: its first 2 lines are not those that report.json was made with",
    ),
    "a missing report": (lambda plan: (plan.out / "report.json").unlink(), "report.json: missing"),
    "no latency": (
        lambda plan: (plan.out / "latency.json").unlink(),
        "latency.json: no such file|report.json: settings.none.latency: stored",
    ),
    "another configuration": (
        lambda plan: edit_text(_trial(plan, 0, "config.yaml"), "epochs: 2", "epochs: 9"),
        "trials/none/seed-0 was trained with train.epochs=9, not 2",
    ),
}
