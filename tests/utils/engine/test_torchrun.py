"""One training by two processes, as `torchrun` starts them, against the same training by one."""

import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
KEYS = (
    "precision=fp32",
    "device=cpu",
    "threads=1",
    "input_size=96",
    "data.shapes_train=32",
    "data.shapes_val=13",
    "train.epochs=2",
    "train.batch_size=4",
    "train.accumulate=2",
    "train.optimizer=sgd",
    "train.eval_every=1",
    "train.freeze_epochs=1",
    "phi=cbam",
    "augment.mixup=0.3",
    "augment.close_mosaic=1",
    "data.cache=disk",
)


def torchrun() -> list[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "--master_addr=127.0.0.1",
        f"--master_port={port}",
    ]


def run(folder: Path, *words: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *words]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def rows(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "results.csv").open()))


@pytest.mark.slow
def test_two_processes_train_and_evaluate_what_one_does(tmp_path: Path) -> None:
    train, evaluate = str(ROOT / "train.py"), str(ROOT / "eval.py")
    run(tmp_path, train, "--config", "shapes.yaml", "name=one", *KEYS)
    said = run(tmp_path, *torchrun(), train, "--config", "shapes.yaml", "name=two", *KEYS)
    assert said.count("epoch 2/2") == 1, "only one of them prints"
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["one", "two"]
    alone, shared = rows(tmp_path / "runs/one"), rows(tmp_path / "runs/two")
    assert len(alone) == len(shared) == 2
    for expected, row in zip(alone, shared, strict=True):
        for key in ("lr", "loss", "box", "objectness", "cls"):
            assert float(row[key]) == pytest.approx(float(expected[key]), rel=2e-3), key
    files = {path.name for path in (tmp_path / "runs" / "one").iterdir()}
    assert files == {path.name for path in (tmp_path / "runs" / "two").iterdir()}

    run(tmp_path, *torchrun(), evaluate, "--weights", "runs/one", "--json", "shared.json")
    expected = json.loads((tmp_path / "runs/one/metrics.json").read_text())
    numbers = json.loads((tmp_path / "shared.json").read_text())
    for key in numbers.keys() - {"seconds"}:
        assert numbers[key] == expected[key], key


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    keys = [key.replace("batch_size=4", "batch_size=7") for key in KEYS]
    command = [
        sys.executable,
        *torchrun(),
        str(ROOT / "train.py"),
        "--config",
        "shapes.yaml",
        *keys,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert (
        done.returncode
        and "expected a multiple of the 2 processes, for each of 2 passes, got 14" in done.stderr
    )
