"""TensorBoard, MLflow and Weights & Biases, as those who read their files see them."""

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import TINY
from utils.core.config import load_config
from utils.core.errors import UserError
from utils.core.schema import Config, TrainConfig
from utils.engine import loggers
from utils.engine.experiment import resume, train
from utils.engine.log import RunLog

ROWS = [{"epoch": float(epoch), "loss": 10.0 / epoch} for epoch in (1, 2, 3)]


class Recorder:
    """A tracker in memory, whose server can be away."""

    def __init__(self, run: Path, config: Config, id: str) -> None:
        self.id = id or "first"
        self.rows: list[tuple[int, Mapping[str, float]]] = []
        self.away = False
        self.status = ""

    def write(self, epoch: int, row: Mapping[str, float]) -> None:
        if self.away:
            raise ConnectionError("server unreachable\nand more lines")
        self.rows.append((epoch, row))

    def close(self, status: str) -> None:
        self.status = status


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setitem(loggers.LOGGERS, "mlflow", Recorder)
    return Config(train=TrainConfig(log=["mlflow"]))


def recorder(log: RunLog) -> Recorder:
    logger = log._trackers[0]._logger
    assert isinstance(logger, Recorder)
    return logger


def test_every_epoch_arrives_once_even_after_an_outage(tmp_path: Path, config: Config, capsys):
    with RunLog(tmp_path, config) as log:
        server = recorder(log)
        log.send(ROWS[:1])
        server.away = True
        log.send(ROWS[:2])
        server.away = False
        log.send(ROWS)
    assert server.rows == [(1, ROWS[0]), (2, ROWS[1]), (3, ROWS[2])] and server.status == "FINISHED"
    said = capsys.readouterr()
    assert said.out + said.err == "note: train.log=mlflow: epoch not logged: server unreachable\n"


def test_a_resumed_run_continues_the_same_run_there(tmp_path: Path, config: Config):
    log = RunLog(tmp_path, config)
    with log:
        log.send(ROWS[:2])
    with RunLog(tmp_path, config) as log:
        log.send(ROWS[:1])  # an epoch that the resumed training repeats
        log.send(ROWS)
        assert recorder(log).id == "first" and recorder(log).rows == [(3, ROWS[2])]


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_the_run_ends_there_as_it_ends_here(
    tmp_path: Path, config: Config, error: type[BaseException], status: str
):
    log = RunLog(tmp_path, config)
    with pytest.raises(error), log:
        raise error
    assert recorder(log).status == status


def test_a_tracker_that_does_not_start_is_refused(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*args: object) -> Recorder:
        raise RuntimeError("no account\ndetails")

    monkeypatch.setitem(loggers.LOGGERS, "mlflow", refuse)
    with pytest.raises(UserError, match=r"^train.log=mlflow: no account$"):
        RunLog(tmp_path, config).__enter__()
    known = tmp_path / "logged-mlflow.json"
    known.write_text('{"id": "x", "epoch": 1}')
    with pytest.raises(UserError, match=f"no account; delete {known} to begin a new run there$"):
        RunLog(tmp_path, config).__enter__()


@pytest.mark.parametrize(
    ("error", "raised", "status"),
    [(RuntimeError, UserError, "FAILED"), (KeyboardInterrupt, KeyboardInterrupt, "KILLED")],
)
def test_trackers_before_one_that_does_not_start_are_ended(
    tmp_path: Path,
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
    raised: type[BaseException],
    status: str,
):
    def refuse(*args: object) -> Recorder:
        raise error("not logged in")

    monkeypatch.setitem(loggers.LOGGERS, "wandb", refuse)
    log = RunLog(tmp_path, Config(train=TrainConfig(log=["mlflow", "wandb"])))
    with pytest.raises(raised):
        log.__enter__()
    assert recorder(log).status == status


def test_a_missing_package_is_refused_before_the_data_is_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    config = load_config("shapes.yaml", ["train.log=[mlflow]", "data.root=/does/not/exist"])
    with pytest.raises(UserError, match=r"^train.log=mlflow: .*: pip install mlflow$"):
        train(config)


def test_the_former_key_stands_for_tensorboard():
    assert TrainConfig(tensorboard=True, log=["wandb", "tensorboard"]).loggers == [
        "tensorboard",
        "wandb",
    ]


def tiny(tmp_path: Path, *words: str) -> Config:
    return load_config("shapes.yaml", [*TINY, "train.eval_every=1", f"output={tmp_path}", *words])


def train_and_prolong(tmp_path: Path, logger: str) -> Path:
    """Two epochs, then a third in a resumed run."""
    run = train(tiny(tmp_path, f"train.log=[{logger}]")).run
    resume(run, {"train.epochs": 3})
    return run


@pytest.mark.slow
def test_tensorboard_shows_a_resumed_run(tmp_path: Path):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard"
    )
    run = train_and_prolong(tmp_path, "tensorboard")
    events = accumulator.EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3]
    assert [event.step for event in events.Scalars("map50")] == [1, 2, 3]


@pytest.mark.slow
def test_mlflow_shows_a_resumed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    monkeypatch.chdir(tmp_path)
    train_and_prolong(tmp_path, "mlflow")
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("yolov4-tiny")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.info.run_name == "shapes"
    assert run.data.params["train.batch_size"] == "4"
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [metric.step for metric in history] == [1, 2, 3]


@pytest.mark.slow
def test_wandb_continues_a_resumed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("wandb", reason="needs wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = train_and_prolong(tmp_path, "wandb")
    folders = sorted((run / "wandb").glob("offline-run-*"))
    ids = {folder.name.rpartition("-")[2] for folder in folders}
    assert len(folders) == 2 and len(ids) == 1
