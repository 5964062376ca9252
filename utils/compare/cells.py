"""Cells: one training each, which is run once, gone on with after an interruption, and kept.

A cell's folder is a run's folder. Beside the run's own files it has `detections.npz` (every detection on the test
images), then `cell.json` (configuration, scores, cost: the cell is finished), or `error.txt` (it failed). Where cells
run side by side, `log.txt` has what this one printed.
"""

import json
import shutil
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from nets.io import checkpoints
from utils.compare.plan import NOT_VARIED, Cell
from utils.compare.results import DETECTIONS, DONE, fingerprint, write_detections
from utils.core.config import load_config
from utils.core.errors import UserError
from utils.core.schema import Config
from utils.engine.datasets import Datasets, open_datasets
from utils.engine.experiment import METRICS, Result, close_run, resume, train
from utils.engine.runs import BEST, CONFIG, LAST

ERROR, LOG = "error.txt", "log.txt"
State = Literal["finished", "failed", "started", "new"]


class SharedData:
    """Loads each dataset once for all cells that use it the same way."""

    def __init__(self) -> None:
        self._loaded: dict[str, Datasets] = {}

    def __call__(self, config: Config) -> Datasets:
        key = json.dumps(
            [config.data.model_dump(mode="json"), config.input_size, config.train.workers]
        )
        if key in self._loaded:
            return self._loaded[key]
        loaded = open_datasets(config)
        # images that are decoded again and again may turn out damaged later: a cell must not depend on the one before
        if config.data.cache != "none" and not (loaded.train.notices or loaded.val.notices):
            self._loaded[key] = loaded
        return loaded


def state(cell: Cell) -> State:
    """Where a cell stands.

    Raises:
        UserError: the folder holds a training of another configuration.
    """
    if (cell.folder / ERROR).is_file():
        return "failed"
    if not (cell.folder / LAST).is_file():
        return "new"
    other = difference(cell)
    if other:
        raise UserError(
            f"{cell.folder} was trained with {other}: give another --out, or delete that folder"
        )
    return "finished" if (cell.folder / DONE).is_file() else "started"


def difference(cell: Cell) -> str | None:
    """The first key in which the training in the cell's folder differs from the cell, `key=there, not here`."""
    there, here = _comparable(load_config(cell.folder / CONFIG)), _comparable(cell.config)
    for key in [*here, *there]:
        if here.get(key) != there.get(key):
            return f"{key}={there.get(key)}, not {here.get(key)}"
    return None


def _comparable(config: Config) -> dict[str, Any]:
    """All keys, dotted, without the run's name and place, which say nothing about its result."""
    return dict(_flat(config.model_dump(mode="json", exclude=set(NOT_VARIED))))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def run_cell(cell: Cell, data: SharedData) -> bool:
    """Bring a cell to its end, from wherever it stands; True if it is finished, False if it failed.

    Whatever goes wrong in the training is written to `error.txt`; only Ctrl-C goes through.
    """
    if state(cell) == "finished":
        return True
    try:
        (cell.folder / ERROR).unlink(missing_ok=True)
        _close(cell, _train(cell, data), data)
        return True
    except Exception as error:  # a failed cell must not take the others with it
        write_failure(cell, str(error) if isinstance(error, UserError) else traceback.format_exc())
        return False


def write_failure(cell: Cell, text: str) -> None:
    """Mark a cell as failed; the last line of `text` is what the report tells."""
    cell.folder.mkdir(parents=True, exist_ok=True)
    (cell.folder / ERROR).write_text(text.rstrip() + "\n", encoding="utf-8")


def failure(cell: Cell) -> str | None:
    """The last line of what went wrong, none for a cell that did not fail."""
    path = cell.folder / ERROR
    lines = path.read_text(encoding="utf-8").rstrip().splitlines() if path.is_file() else []
    return lines[-1] if lines else None


def _train(cell: Cell, data: SharedData) -> Result:
    """The training itself: new, gone on with, or only closed."""
    loaded = data(cell.config)
    # what failed may have been of another configuration: it is not gone on with
    if not (cell.folder / LAST).is_file() or difference(cell):
        _clear(cell.folder)
        return train(cell.config, cell.folder, loaded)
    if checkpoints.load(cell.folder / LAST)["training"]["progress"]["done"]:
        return close_run(cell.folder, loaded.val)
    return resume(cell.folder, datasets=loaded)


def _clear(folder: Path) -> None:
    """Empty a cell's folder, but for the log that this very attempt may be writing."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != LOG:
            path.unlink(missing_ok=True)


def _close(cell: Cell, result: Result, data: SharedData) -> None:
    """Keep the detections and, last, the mark that the cell is finished."""
    write_detections(cell.folder / DETECTIONS, result.evaluation.detections)
    last = checkpoints.load(cell.folder / LAST)
    content = {
        "variant": cell.variant,
        "seed": cell.seed,
        "truth": fingerprint(data(cell.config).val.samples),
        "train_seconds": round(last["training"]["progress"]["seconds"], 2),
        "epochs": last["epoch"],
        "best_epoch": checkpoints.load(cell.folder / BEST)["epoch"],
        "metrics": json.loads((cell.folder / METRICS).read_text(encoding="utf-8")),
    }
    part = cell.folder / f"{DONE}.part"
    part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(cell.folder / DONE)
