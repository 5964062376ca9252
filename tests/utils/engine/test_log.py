"""results.csv and curves."""

import csv
from pathlib import Path

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


def test_going_on_replaces_rows_that_came_after(tmp_path: Path):
    RunLog(tmp_path, Config()).write([ROW, MEASURED])
    RunLog(tmp_path, Config()).write([{**ROW, "loss": 9.0}])
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert [float(row["loss"]) for row in rows] == [9.0]
