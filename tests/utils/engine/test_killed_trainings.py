"""A training that is killed or stopped by a signal goes on bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nets.io import checkpoints
from tests.utils.engine.run_files import rows_without_time
from utils.core.config import load_config
from utils.core.errors import UserError
from utils.engine.experiment import resume, train
from utils.engine.runs import BEST, LAST

ROOT = Path(__file__).resolve().parents[3]
LONGER = (  # 8 steps per epoch, and dropout, whose random numbers must continue too
    "device=cpu",
    "threads=1",
    "input_size=64",
    "data.shapes_train=16",
    "data.shapes_val=8",
    "train.epochs=2",
    "train.batch_size=2",
    "train.optimizer=sgd",
    "augment.mixup=0.3",
    "augment.close_mosaic=1",
    "phi={feat1: {name: mhsa, dropout: 0.1}}",
)
TIMEOUT = 120  # seconds until a started training counts as stuck


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(
        load_config("shapes.yaml", [*LONGER, f"output={tmp_path_factory.mktemp('undisturbed')}"])
    ).run


def train_and_kill(ready: Callable[[str], bool], *overrides: str) -> dict[str, Any]:
    """Start train.py here, kill it when `ready(its output)`, and return the saved progress."""
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        "--config",
        "shapes.yaml",
        *LONGER,
        *overrides,
    ]
    log, end = Path("log.txt"), time.monotonic() + TIMEOUT
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    with (
        log.open("w") as file,
        subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=buffered) as process,
    ):
        try:
            while not ready(log.read_text()):
                assert process.poll() is None and time.monotonic() < end, log.read_text()
                time.sleep(0.005)
        finally:
            process.kill()
    return checkpoints.load(Path("runs/shapes") / LAST)["training"]["progress"]


def assert_ended_alike(run: Path, other: Path, assert_same: Callable) -> None:
    """The same weights, average, optimizer state and results."""
    for name in (LAST, BEST):
        assert_same(checkpoints.load(run / name), checkpoints.load(other / name), name)
    assert rows_without_time(run) == rows_without_time(other)


@pytest.mark.slow
def test_a_training_killed_inside_an_epoch_goes_on_bit_for_bit(
    undisturbed: Path, assert_same: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    run = Path("runs/shapes")
    progress = train_and_kill(lambda output: (run / LAST).exists(), "train.save_minutes=1e-6")
    assert 0 < 8 * progress["epoch"] + progress["step"] < 16
    command = [sys.executable, str(ROOT / "train.py"), "--resume", str(run)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert f"in epoch {progress['epoch'] + 1}, after step {progress['step']}" in done.stdout
    assert_ended_alike(run, undisturbed, assert_same)
    ends = [json.loads((folder / "metrics.json").read_text()) for folder in (run, undisturbed)]
    assert ends[0]["map50_95"] == ends[1]["map50_95"]
    with pytest.raises(UserError, match="training is already finished"):
        resume(run)


@pytest.mark.slow
def test_a_training_killed_between_epochs_goes_on_bit_for_bit(
    undisturbed: Path, assert_same: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    progress = train_and_kill(
        lambda output: "epoch 1/2" in output
    )  # the line must not wait in a buffer
    assert progress["epoch"] == 1 and progress["step"] == 0
    run = Path("runs/shapes")
    assert resume(run).run == run
    assert_ended_alike(run, undisturbed, assert_same)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_saves_at_the_next_step_and_the_run_goes_on_bit_for_bit(
    name: str,
    code: int,
    undisturbed: Path,
    assert_same: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    run = Path("runs/shapes")
    command = [sys.executable, str(ROOT / "train.py"), "--config", "shapes.yaml", *LONGER]
    with subprocess.Popen(
        [*command, "train.save_minutes=1e-6"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not (run / LAST).exists() and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(getattr(signal, name))
        output, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == code
    assert f"continue with: python train.py --resume {run}" in output
    said = "interrupted" if name == "SIGINT" else f"stopped by {name}"
    assert errors.splitlines()[-1] == said and "Traceback" not in errors
    assert not list(run.glob(".*.part*"))
    resume(run)
    assert_ended_alike(run, undisturbed, assert_same)
