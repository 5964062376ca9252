"""Trainings that are killed several times and resumed end like undisturbed ones, bit for bit.

    python -m tests.robustness.kill_chains [--chains 20] [--kills 3] [--seed 0]

Each chain is a tiny training in a process that is killed by SIGKILL at a random moment, resumed,
killed again and so on, and then resumed to its end. Its weights, averages, optimizer state,
`results.csv` and `metrics.json` are compared with those of a training that nothing disturbed; only
times may differ. A kill that comes after the end of the training is not counted: another follows.
"""

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, equal

from nets.io import checkpoints
from utils.engine.experiment import METRICS
from utils.engine.runs import BEST, LAST

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = (  # 4 steps per epoch, a save after every step, and dropout
    "device=cpu",
    "precision=fp32",
    "threads=1",
    "input_size=64",
    "data.shapes_train=8",
    "data.shapes_val=8",
    "train.epochs=4",
    "train.batch_size=2",
    "train.optimizer=sgd",
    "train.eval_every=2",
    "train.save_minutes=1e-6",
    "augment.mixup=0.3",
    "augment.close_mosaic=1",
    "phi={feat1: {name: mhsa, dropout: 0.1}}",
)
RUN = Path("runs/shapes")
TIMEOUT = 600.0  # seconds for a training


def start(folder: Path, resumed: bool) -> subprocess.Popen:
    """Start a training in a folder, or resume it."""
    words = ["--resume", str(RUN)] if resumed else ["--config", "shapes.yaml", *SETTINGS]
    with (folder / "log.txt").open("a") as log:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), *words],
            cwd=folder,
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )


def finish(folder: Path) -> float:
    """Train, or resume, to the end; return the seconds since the first state was saved."""
    last = folder / RUN / LAST
    process = start(folder, last.exists())
    while not last.exists() and process.poll() is None:
        time.sleep(0.01)
    saved = time.monotonic()
    if process.wait(TIMEOUT):
        raise RuntimeError((folder / "log.txt").read_text())
    return time.monotonic() - saved


def kill_once(folder: Path, delay: float, saves_first: bool = True) -> bool:
    """Kill a training `delay` seconds after its start, or its first save; whether it was alive."""
    run = folder / RUN
    before = _modified(run / LAST)
    process = start(folder, before > 0)
    end = time.monotonic() + TIMEOUT
    try:
        while saves_first and _modified(run / LAST) == before and process.poll() is None:
            if time.monotonic() > end:
                raise RuntimeError((folder / "log.txt").read_text())
            time.sleep(0.002)
        time.sleep(delay)
    finally:
        process.kill()
        process.wait()
    if process.returncode > 0:
        raise RuntimeError((folder / "log.txt").read_text())
    return process.returncode < 0


def _modified(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def chain(folder: Path, kills: int, longest: float, rng: random.Random) -> int:
    """Kill a training `kills` times, or until it has ended; return how often it was killed."""
    killed = 0
    for _ in range(kills):
        saves_first = killed == 0 or rng.random() < 0.8
        killed += kill_once(folder, rng.uniform(0, longest / kills), saves_first)
        if (folder / RUN / METRICS).exists():
            break
    if not (folder / RUN / METRICS).exists():
        finish(folder)
    return killed


def difference(
    first: Any, second: Any, where: str = "", ignored: Collection[str] = ("seconds",)
) -> str:
    """Where two saved values differ; empty if they do not.

    Args:
        first: tensors and plain values.
        second: likewise.
        where: the name of the values.
        ignored: keys that may differ.
    """
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return "" if first.dtype == second.dtype and equal(first, second) else where
    if isinstance(first, dict) and isinstance(second, dict):
        if first.keys() != second.keys():
            return f"{where}: keys"
        pairs = [(key, first[key], second[key]) for key in first if key not in ignored]
    elif isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        if len(first) != len(second):
            return f"{where}: length"
        pairs = list(zip(range(len(first)), first, second, strict=True))
    else:
        same = first == second or (first != first and second != second)  # NaN
        return "" if same else f"{where}: {first!r} and {second!r}"
    found = (difference(one, other, f"{where}.{key}", ignored) for key, one, other in pairs)
    return next(filter(None, found), "")


def state(run: Path) -> dict[str, Any]:
    """Everything that two equal trainings have in common."""
    return {
        LAST: checkpoints.load(run / LAST),
        BEST: checkpoints.load(run / BEST),
        "results.csv": list(csv.DictReader((run / "results.csv").open())),
        METRICS: json.loads((run / METRICS).read_text()),
    }


def run_chains(count: int, kills: int, seed: int, folder: Path) -> int:
    """Run chains; return how many ended like the undisturbed training."""
    (folder / "undisturbed").mkdir()
    seconds = finish(folder / "undisturbed")
    expected = state(folder / "undisturbed" / RUN)
    good = total = 0
    for number in range(count):
        place = folder / str(number)
        place.mkdir()
        killed = chain(place, kills, seconds, random.Random(f"{seed} {number}"))
        found = difference(expected, state(place / RUN)) or "the same"
        print(f"chain {number}: killed {killed} times: {found}", flush=True)
        good += found == "the same"
        total += killed
    print(f"{good} of {count} ({total} kills)")
    return good


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.robustness.kill_chains")
    parser.add_argument("--chains", type=int, default=20)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        good = run_chains(args.chains, args.kills, args.seed, Path(folder))
    return 0 if good == args.chains else 1


if __name__ == "__main__":
    sys.exit(main())
