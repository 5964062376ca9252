"""results.csv and curves."""

import csv
from pathlib import Path

import pytest

from utils.core.schema import Config
from utils.engine.log import COLUMNS, RunLog

ROW = {
    "epoch": 1,
    "lr": 0.01,
    "loss": 3.5,
    "box": 2.0,
    "objectness": 1.0,
    "cls": 0.5,
    "seconds": 4.2,
}
MEASURED = {**ROW, "epoch": 2, "map50": 0.5, "map50_95": 0.25, "voc_ap50": 0.4}


def test_the_table_is_the_history(tmp_path: Path):
    log = RunLog(tmp_path, Config())
    log.write([ROW])
    log.write([ROW, MEASURED])
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert tuple(rows[0]) == COLUMNS and len(rows) == 2
    assert rows[0]["map50"] == "" and float(rows[1]["map50_95"]) == 0.25
    assert {path.name for path in tmp_path.iterdir()} == {"results.csv", "curves.png"}


def test_curves_are_not_drawn_after_every_short_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    drawn: list[int] = []
    now = [1000.0]
    monkeypatch.setattr(
        "utils.engine.log.plot_training_curves", lambda rows, path: drawn.append(len(rows))
    )
    monkeypatch.setattr("utils.engine.log.time.monotonic", lambda: now[0])
    with RunLog(tmp_path, Config()) as log:
        for epoch in range(1, 8):
            log.write([ROW] * epoch)
            now[0] += 4
        assert drawn == [1, 4, 7]
        log.write([ROW] * 8)
        assert drawn == [1, 4, 7]
    assert drawn == [1, 4, 7, 8]
    with RunLog(tmp_path, Config()):
        pass
    assert drawn == [1, 4, 7, 8], "nothing new"


def test_going_on_replaces_rows_that_came_after(tmp_path: Path):
    RunLog(tmp_path, Config()).write([ROW, MEASURED])
    RunLog(tmp_path, Config()).write([{**ROW, "loss": 9.0}])
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert [float(row["loss"]) for row in rows] == [9.0]
