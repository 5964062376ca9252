"""Run folders: made, found, read."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from nets.inference.detector import Detector
from utils.core.config import dump_config
from utils.core.errors import UserError, nearest
from utils.core.schema import Config
from utils.data.loading import load_dataset

BEST, LAST, CONFIG = "best.pt", "last.pt", "config.yaml"


def create_run(config: Config, run: Path | None = None) -> Path:
    """Make the folder `run`, or `<output>/<name>`, `<name>-2`, `-3`, ... if there is one; put `config.yaml` in it."""
    if run is not None:
        run.mkdir(parents=True, exist_ok=True)
        (run / CONFIG).write_text(dump_config(config), encoding="utf-8")
        return run
    base = Path(config.output)
    number = 1
    while True:
        run = base / (config.name if number == 1 else f"{config.name}-{number}")
        try:
            run.mkdir(parents=True)
        except FileExistsError:
            number += 1
            continue
        except OSError as error:
            raise UserError(
                f"output={config.output}: cannot make {run}: {error.strerror}"
            ) from None
        (run / CONFIG).write_text(dump_config(config), encoding="utf-8")
        return run


def find_run(run: str | Path) -> Path:
    """The folder of a run that can be resumed: `run` as given, or below `runs/`; its `last.pt` also names it."""
    for candidate in (Path(run), Path("runs") / run):
        folder = candidate.parent if candidate.is_file() else candidate
        if (folder / LAST).is_file():
            return folder
    known = [path.parent.name for path in Path("runs").glob(f"*/{LAST}")]
    raise UserError(f"--resume {run}: no {LAST} in that folder{nearest(Path(run).name, known)}")


def find_weights(weights: str | Path | None) -> Path:
    """The weights file that a user means: a file, a run's folder, or the newest run's `best.pt` where none is named.

    Raises:
        UserError: nothing there; says what to do.
    """
    if weights is None:
        return _newest_weights()
    for candidate in (Path(weights), Path("runs") / weights):
        if candidate.is_file():
            return candidate
        if candidate.is_dir():
            return _weights_in(candidate)
    known = [str(path.parent) for path in Path("runs").glob(f"*/{BEST}")]
    raise UserError(f"--weights {weights}: no such file or run{nearest(str(weights), known)}")


def _weights_in(run: Path) -> Path:
    for name in (BEST, LAST):
        if (run / name).is_file():
            return run / name
    raise UserError(f"--weights {run}: no {BEST} in that folder")


def _newest_weights() -> Path:
    found = sorted(Path("runs").glob(f"*/{BEST}"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UserError(
            "no trained weights in runs/: train first (python train.py --config shapes.yaml) or give --weights"
        )
    return found[-1]


def validation_pictures(config: Config, limit: int) -> list[tuple[str, Callable[[], np.ndarray]]]:
    """The first `limit` validation images of a dataset as (name, function that reads it)."""
    dataset = load_dataset(config.data, "val", config.input_size, progress=False)
    return [(str(sample.path), sample.read_image) for sample in dataset.samples[:limit]]


def describe(detector: Detector) -> str:
    """One line on a detector, for the terminal."""
    height, width = detector.input_size
    where = f"{detector.device}, {detector.precision}"
    return f"{len(detector.names)} classes, phi {detector.config.phi}, {width}x{height}, {where}"
