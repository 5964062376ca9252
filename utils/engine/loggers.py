"""Experiment trackers that a training also logs to: TensorBoard, MLflow, Weights & Biases.

Each takes the rows of the history that it does not have yet, so that a resumed run continues its
curves, and an outage of a server loses nothing that comes later.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field
from tqdm import tqdm

from utils.core.errors import UserError, require_package
from utils.core.inputs import is_file
from utils.core.outputs import write_file
from utils.core.overrides import flatten
from utils.core.schema import Config, LoggerName
from utils.core.validation import SavedSection, read_json

PROJECT = (
    "yolov4-tiny"  # MLflow's experiment and W&B's project, unless their variables name another
)
# Seconds per request and number of repetitions: MLflow would keep a training waiting for minutes
PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}

Row = Mapping[str, float]


class Logger(Protocol):
    """An experiment tracker.

    Attributes:
        id: what identifies the run there, to continue it.
    """

    id: str

    def write(self, epoch: int, row: Row) -> None:
        """Log the numbers of an epoch."""

    def close(self, status: str) -> None:
        """End the run there, as FINISHED, FAILED or KILLED."""


class TensorBoard:
    """Event files in `tensorboard/` of the run, for `tensorboard --logdir runs`."""

    def __init__(self, run: Path, config: Config, id: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.id = id
        self.writer = SummaryWriter(str(run / "tensorboard"))

    def write(self, epoch: int, row: Row) -> None:
        for key, value in row.items():
            self.writer.add_scalar(key, value, epoch)
        self.writer.flush()

    def close(self, status: str) -> None:
        self.writer.close()


class MLflow:
    """A run on the server that MLFLOW_TRACKING_URI names; by default in MLflow's local files."""

    def __init__(self, run: Path, config: Config, id: str) -> None:
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        import mlflow

        self.mlflow = mlflow
        if not os.environ.get("MLFLOW_EXPERIMENT_NAME"):
            mlflow.set_experiment(PROJECT)
        started = mlflow.start_run(run_id=id or None, run_name=config.name)
        self.id = started.info.run_id
        if not id:
            mlflow.log_params(_parameters(config))

    def write(self, epoch: int, row: Row) -> None:
        self.mlflow.log_metrics(dict(row), step=epoch)

    def close(self, status: str) -> None:
        self.mlflow.end_run(status)


class WeightsAndBiases:
    """A run of the account that is logged in; WANDB_MODE=offline keeps it in the run's folder."""

    def __init__(self, run: Path, config: Config, id: str) -> None:
        import wandb

        project = os.environ.get("WANDB_PROJECT", PROJECT)
        settings = wandb.Settings(console="off")  # the terminal stays the training's
        self.run = wandb.init(
            project=project,
            name=config.name,
            id=id or None,
            resume="allow",
            dir=run,
            config=_parameters(config),
            settings=settings,
        )
        self.id = self.run.id

    def write(self, epoch: int, row: Row) -> None:
        self.run.log(dict(row), step=epoch)

    def close(self, status: str) -> None:
        self.run.finish(exit_code=0 if status == "FINISHED" else 1)


def _parameters(config: Config) -> dict[str, Any]:
    """Dotted key -> value."""
    return dict(flatten(config.model_dump(mode="json")))


LOGGERS: dict[LoggerName, Callable[[Path, Config, str], Logger]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WeightsAndBiases,
}


class LoggedState(SavedSection):
    """How far a tracker is: the content of `logged-<name>.json` in the run's folder."""

    id: str = ""
    epoch: int = Field(0, ge=0)


def check_loggers(config: Config) -> None:
    """Check that the packages of the configured trackers are installed.

    Raises:
        UserError: one is not.
    """
    for name in config.train.loggers:
        require_package(name, f"train.log={name}")


class LoggedRun:
    """One tracker of a run: continues where it stopped, and never ends a training.

    Args:
        name: which one.
        run: folder of the run.
        config: the run's configuration.

    Raises:
        UserError: the tracker does not start.
    """

    def __init__(self, name: LoggerName, run: Path, config: Config) -> None:
        self.name = name
        self._path = run / f"logged-{name}.json"
        self._state = LoggedState()
        if is_file(self._path):
            self._state = read_json(LoggedState, self._path)
        try:
            self._logger = LOGGERS[name](run, config, self._state.id)
        except Exception as error:  # whatever a library raises about a server or an account
            known = f"; delete {self._path} to begin a new run there" if self._state.id else ""
            raise UserError(f"train.log={name}: {_first_line(error)}{known}") from None
        self._state.id = self._logger.id

    def write(self, history: Sequence[Row]) -> None:
        """Log the epochs that are not logged yet; failures are reported, and tried again later."""
        try:
            for row in history[self._state.epoch :]:
                epoch = int(row["epoch"])
                self._logger.write(epoch, row)
                self._state.epoch = epoch
                write_file(self._path, self._state.model_dump_json())
        except Exception as error:
            tqdm.write(f"note: train.log={self.name}: epoch not logged: {_first_line(error)}")

    def close(self, status: str) -> None:
        """End the run in the tracker."""
        try:
            self._logger.close(status)
        except Exception as error:
            tqdm.write(f"note: train.log={self.name}: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
