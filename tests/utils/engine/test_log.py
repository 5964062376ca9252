"""results.csv, curves and TensorBoard."""

import csv
import sys
from pathlib import Path

import pytest

from utils.core.errors import UserError
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
    log = RunLog(tmp_path, tensorboard=False)
    log.write([ROW])
    log.write([ROW, MEASURED])
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert tuple(rows[0]) == COLUMNS and len(rows) == 2
    assert rows[0]["map50"] == "" and float(rows[1]["map50_95"]) == 0.25
    assert {path.name for path in tmp_path.iterdir()} == {"results.csv", "curves.png"}


def test_going_on_replaces_rows_that_came_after(tmp_path: Path):
    RunLog(tmp_path, tensorboard=False).write([ROW, MEASURED])
    RunLog(tmp_path, tensorboard=False).write([{**ROW, "loss": 9.0}])
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert [float(row["loss"]) for row in rows] == [9.0]


def test_tensorboard_gets_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written = {}

    class Writer:
        def add_scalar(self, key: str, value: float, step: int) -> None:
            written[key] = (value, step)

        def flush(self) -> None:
            written["flushed"] = True

    monkeypatch.setattr("utils.engine.log._summary_writer", lambda run: Writer())
    RunLog(tmp_path, tensorboard=True).write([ROW, MEASURED])
    assert written["map50"] == (0.5, 2) and written["loss"] == (3.5, 2) and written["flushed"]


def test_tensorboard_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match="pip install tensorboard"):
        RunLog(tmp_path, tensorboard=True)
