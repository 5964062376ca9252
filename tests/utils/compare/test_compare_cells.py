"""Cells are kept, gone on with, and fail alone."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from utils.compare import cells
from utils.compare.analysis import Comparison
from utils.compare.cells import ERROR, SharedData, failure, run_cell, state
from utils.compare.plan import Cell, Plan
from utils.compare.results import DETECTIONS, DONE, read_detections, read_outcome
from utils.compare.running import compare, duration, run_cells
from utils.core.errors import UserError
from utils.data.loading import load_dataset
from utils.engine.runs import LAST
from utils.engine.trainer import Trainer
from utils.metrics import evaluate

Tables = Callable[[Path], list[list[str]]]


def must_not_train(*args: object) -> None:
    raise AssertionError("a finished cell is trained again")


def test_finished_cells_are_reused(
    copied: Plan, tables: Tables, monkeypatch: pytest.MonkeyPatch, capsys
):
    for name in ("train", "resume", "close_run"):
        monkeypatch.setattr(cells, name, must_not_train)
    before = {path: path.stat().st_mtime_ns for path in copied.out.glob("cells/*/*/*")}
    expected = tables(copied.out)
    compare(copied, [])
    assert {path: path.stat().st_mtime_ns for path in copied.out.glob("cells/*/*/*")} == before
    assert tables(copied.out) == expected
    assert "4 trainings, 4 of them finished already" in capsys.readouterr().out


def test_a_cell_holds_what_the_evaluator_measured(finished: tuple[Plan, Comparison]):
    cell = finished[0].cells[1]
    split = load_dataset(cell.config.data, "val", cell.config.input_size)
    found = read_detections(cell, split.samples, split.class_names)
    metrics = evaluate(split.samples, found, split.class_names)
    outcome = read_outcome(cell)
    assert sum(map(len, found)) > 0
    assert (outcome.ap, outcome.ap50) == pytest.approx(
        (100 * metrics.map50_95, 100 * metrics.map50), abs=1e-4
    )
    with pytest.raises(UserError, match="detections of other images"):
        read_detections(cell, split.samples[1:], split.class_names)


def test_data_is_loaded_once(finished: tuple[Plan, Comparison], monkeypatch: pytest.MonkeyPatch):
    data, (first, second, *_) = SharedData(), finished[0].cells
    assert data(first.config) is data(second.config)
    larger = first.config.model_copy(update={"input_size": (96, 96)})
    assert data(larger) is not data(first.config)
    uncached = first.config.model_copy(
        update={"data": first.config.data.model_copy(update={"cache": "none"})}
    )
    assert data(uncached) is not data(uncached)  # damaged images would be known to later cells only


def test_a_failed_cell_is_shown_and_tried_again(
    copied: Plan, tables: Tables, monkeypatch: pytest.MonkeyPatch, capsys
):
    expected, broken = tables(copied.out), copied.cells[1]
    shutil.rmtree(broken.folder)

    def out_of_memory(self: Trainer) -> None:
        raise RuntimeError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "fit", out_of_memory)
        comparison = compare(copied, [])
    assert state(broken) == "failed" and failure(broken) == "RuntimeError: CUDA out of memory"
    assert "failed: RuntimeError: CUDA out of memory" in capsys.readouterr().out
    assert comparison.failed == {("se", 0): "RuntimeError: CUDA out of memory"}
    assert [pair.ap.seeds for pair in comparison.pairs] == [1]
    for name in ("report.html", "report.md"):
        text = (copied.out / name).read_text(encoding="utf-8")
        assert "CUDA out of memory" in text and "se, seed 0" in text
    assert ["se", "0", "failed"] in [row[:3] for row in tables(copied.out)]
    compare(copied, [])
    assert not (broken.folder / ERROR).exists() and tables(copied.out) == expected


def test_nothing_finished_is_an_error(
    tmp_path: Path, copied: Plan, monkeypatch: pytest.MonkeyPatch
):
    def broken(*args: object) -> None:
        raise UserError("the loss is not finite")

    monkeypatch.setattr(cells, "train", broken)
    with pytest.raises(
        UserError, match="no training finished; the first one says: the loss is not finite"
    ):
        compare(replace(copied, out=tmp_path / "new"), [])


def test_an_interrupted_cell_goes_on_mid_run(
    copied: Plan, tables: Tables, monkeypatch: pytest.MonkeyPatch, capsys
):
    expected, cell = tables(copied.out), copied.cells[3]
    shutil.rmtree(cell.folder)
    steps, whole = [], Trainer.step

    def interrupted(self: Trainer, batch: object):
        if len(steps) == 4:  # the second of the second epoch's three
            raise KeyboardInterrupt
        steps.append(0)
        return whole(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            compare(copied, [])
    assert state(cell) == "started" and (cell.folder / LAST).is_file()
    compare(copied, [])
    assert "in epoch 2, after step 1" in capsys.readouterr().out
    assert state(cell) == "finished" and tables(copied.out) == expected


@pytest.mark.parametrize(
    "missing", [(DONE,), (DONE, DETECTIONS), (DONE, DETECTIONS, "metrics.json")]
)
def test_a_cell_killed_while_it_is_closed_is_closed(
    copied: Plan, missing: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
):
    cell = copied.cells[0]
    before = (read_outcome(cell).ap, dict(np.load(cell.folder / DETECTIONS)))
    for name in missing:
        (cell.folder / name).unlink()
    monkeypatch.setattr(cells, "train", must_not_train)
    monkeypatch.setattr(Trainer, "step", must_not_train)
    assert run_cell(cell, SharedData()) and state(cell) == "finished"
    after = dict(np.load(cell.folder / DETECTIONS))
    assert read_outcome(cell).ap == before[0]
    assert all(np.array_equal(after[key], value) for key, value in before[1].items())


def test_a_folder_of_another_configuration_is_refused(copied: Plan):
    cell = copied.cells[0]
    longer = cell.config.model_copy(
        update={"train": cell.config.train.model_copy(update={"epochs": 3})}
    )
    with pytest.raises(
        UserError, match=r"was trained with train.epochs=2, not 3: give another --out"
    ):
        state(replace(cell, config=longer))
    moved = cell.config.model_copy(update={"name": "elsewhere", "output": "other"})
    assert state(replace(cell, config=moved)) == "finished"


def test_a_folder_without_a_checkpoint_is_begun_anew(copied: Plan):
    cell = copied.cells[0]
    (cell.folder / LAST).unlink()
    (cell.folder / "config.yaml").write_text("train: {epo")  # killed while it was written
    assert state(cell) == "new"


def test_labels_that_change_after_the_training_are_noticed(copied: Plan):
    path = copied.cells[0].folder / DONE
    text = path.read_text(encoding="utf-8")
    mark = str(read_outcome(copied.cells[0]).truth)
    path.write_text(text.replace(f'"truth": {mark}', '"truth": 1'), encoding="utf-8")
    with pytest.raises(UserError, match="labels have changed since"):
        compare(copied, [])


def test_the_time_left_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, copied: Plan
):
    def quick(cell: Cell, data: SharedData) -> bool:
        clock[0] += 100
        return True

    clock = [0.0]
    monkeypatch.setattr("utils.compare.running.run_cell", quick)
    monkeypatch.setattr("utils.compare.running.time.monotonic", lambda: clock[0])
    run_cells(replace(copied, out=tmp_path / "new").cells, [], SharedData())
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("[")]
    assert lines == [
        "[1/4] none, seed 0",
        "[2/4] se, seed 0, about 5 min left",
        "[3/4] none, seed 1, about 3 min left",
        "[4/4] se, seed 1, about 2 min left",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(40, "40 s"), (720, "12 min"), (12000, "3 h 20 min"), (7300, "2 h 02 min")],
)
def test_durations(seconds: float, text: str):
    assert duration(seconds) == text
