"""Trials: each is trained once, resumed after an interruption, and kept.

A trial's folder is a run folder. Beside the run's own files it holds `detections.npz` (all
detections on the test images), then `trial.json` (scores and cost: the trial is finished), or
`error.txt` (it failed). Trials that run in parallel print to `log.txt`.
"""

import json
import shutil
import traceback
from pathlib import Path
from typing import Any, Literal

from nets.io import checkpoints
from utils.compare.planning.plan import Trial, comparable_values
from utils.compare.trials.failures import ERROR, Failure, classify, write_failure
from utils.compare.trials.machine import LoadWatch, describe_machine
from utils.compare.trials.results import DETECTIONS, DONE, fingerprint, write_detections
from utils.core.config import load_config
from utils.core.devices import pick_device
from utils.core.errors import UserError
from utils.core.inputs import hash_content, read_with
from utils.core.schema import Config
from utils.engine.datasets import Datasets, open_datasets
from utils.engine.experiment import METRICS, Result, close_run, resume, train
from utils.engine.report import write_json
from utils.engine.runs import BEST, CONFIG, LAST
from utils.engine.saved_state import check_training

LOG = "log.txt"

TrialState = Literal["finished", "failed", "started", "new"]


class SharedData:
    """Loads each dataset once for all trials that use it in the same way."""

    def __init__(self) -> None:
        self._loaded: dict[str, Datasets] = {}

    def load(self, config: Config) -> Datasets:
        """All splits as the configuration asks for them."""
        data = config.data.model_dump(mode="json")
        key = json.dumps([data, config.input_size, config.train.workers])
        if key in self._loaded:
            return self._loaded[key]
        datasets = open_datasets(config)
        # An image that is decoded every epoch may turn out to be damaged late and lose its objects
        # from then on. Trials must not depend on earlier ones, so such datasets are not shared.
        splits = (datasets.train, datasets.val, datasets.final)
        damaged = any(split.notices for split in splits)
        if config.data.cache != "none" and not damaged:
            self._loaded[key] = datasets
        return datasets


def read_state(trial: Trial) -> TrialState:
    """Return the state of a trial.

    Raises:
        UserError: its folder holds a training with another configuration.
    """
    if (trial.folder / ERROR).is_file():
        return "failed"
    if not (trial.folder / LAST).is_file():
        if (trial.folder / DONE).is_file() and not (trial.folder / CONFIG).is_file():
            raise UserError(f"{trial.folder} holds foreign detections: give another --out")
        return "new"
    changed = find_difference(trial)
    if changed:
        raise UserError(
            f"{trial.folder} was trained with {changed}: give another --out, or delete that folder"
        )
    return "finished" if (trial.folder / DONE).is_file() else "started"


def find_difference(trial: Trial) -> str | None:
    """The first key in which the trial's folder and the trial differ, as `key=saved, not new`."""
    saved = comparable_values(load_config(trial.folder / CONFIG))
    new = comparable_values(trial.config)
    for key, value in new.items():
        if saved[key] != value:
            return f"{key}={saved[key]}, not {value}"
    return None


def run_trial(trial: Trial, data: SharedData) -> bool:
    """Run a trial to its end, whatever its state; return False if it failed.

    Any error is written to `error.txt`; only Ctrl-C is raised.
    """
    if read_state(trial) == "finished":
        return True
    try:
        (trial.folder / ERROR).unlink(missing_ok=True)
        datasets = data.load(trial.config)
        is_new, watch = not (trial.folder / LAST).is_file(), LoadWatch()
        result = _train(trial, datasets)
        _write_result(trial, result, datasets, is_new and watch.is_alone())
        return True
    except Exception as error:  # the other trials continue
        text = str(error) if isinstance(error, UserError) else traceback.format_exc()
        write_failure(trial.folder, Failure(classify(error), text))
        return False


def _train(trial: Trial, datasets: Datasets) -> Result:
    """Train from the start, or from the last checkpoint, or only evaluate."""
    # A failed trial may have had another configuration and then cannot be resumed.
    if not (trial.folder / LAST).is_file() or find_difference(trial):
        _clear(trial.folder)
        return train(trial.config, trial.folder, datasets)
    if _read_progress(trial)["done"]:
        return close_run(trial.folder, datasets)
    return resume(trial.folder, datasets=datasets)


def _read_progress(trial: Trial) -> dict[str, Any]:
    last = trial.folder / LAST
    content = checkpoints.load(last)
    check_training(content, last)
    return content["training"]["progress"]


def _clear(folder: Path) -> None:
    """Empty a trial's folder except for the log, which this attempt may be writing."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != LOG:
            path.unlink(missing_ok=True)


def _write_result(trial: Trial, result: Result, datasets: Datasets, is_alone: bool) -> None:
    """Write the detections and, last, the file that marks the trial as finished."""
    write_detections(trial.folder / DETECTIONS, result.final.detections)
    metrics = json.loads((trial.folder / METRICS).read_text(encoding="utf-8"))
    progress = _read_progress(trial)
    content = {
        "setting": trial.setting,
        "seed": trial.seed,
        "truth": fingerprint(datasets.final.samples),
        "detections": read_with(hash_content, trial.folder / DETECTIONS),
        "train_seconds": round(progress["seconds"], 2),
        "machine": describe_machine(pick_device(trial.config.device)),
        "alone": is_alone,
        "epochs": progress["epoch"],
        "best_epoch": checkpoints.load(trial.folder / BEST)["epoch"],
        "metrics": metrics.get("test", metrics),
    }
    write_json(trial.folder / DONE, content)
