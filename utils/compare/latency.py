"""Latency of the settings, measured one after the other in turns, so that a busy moment hits all of them alike."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nets.loading import load_model
from utils.compare.plan import Cell
from utils.compare.results import DONE
from utils.core.timing import Budget, interleave, timed
from utils.engine.report import write_json
from utils.engine.runs import BEST

FILE = "latency.json"
SECONDS = 2.0  # for each setting
LEAST, MOST = 10, 200  # rounds
WARMUP = 3


def measure_latency(out: Path, cells: Sequence[Cell], image: np.ndarray) -> dict[str, float]:
    """Median ms of one image, end to end (letterbox, network, NMS; batch 1), for the setting of every cell.

    What an earlier start has measured for the same cells is kept, in `out/latency.json`.

    Args:
        cells: a finished one for each setting. image: RGB uint8 `(h, w, 3)`.
    """
    path = out / FILE
    marks = {
        cell.variant: f"{cell.seed} {(cell.folder / DONE).stat().st_mtime_ns}" for cell in cells
    }
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if kept.get("cells") == marks:
        return kept["ms"]
    detectors = {cell.variant: load_model(cell.folder / BEST) for cell in cells}
    measured = time_in_turns(
        {name: partial(detector, image) for name, detector in detectors.items()}
    )
    write_json(path, {"cells": marks, "ms": measured})
    return measured


def time_in_turns(
    runs: Mapping[str, Callable[[], Any]], seconds: float = SECONDS
) -> dict[str, float]:
    """Median ms of each function over rounds in which each runs once; about `seconds` for each."""
    effort = Budget(seconds * len(runs), LEAST, MOST, WARMUP)
    times = interleave(
        {name: timed(run) for name, run in runs.items()}, effort, "measuring latency"
    )
    return {name: round(float(np.median(values)), 3) for name, values in times.items()}
