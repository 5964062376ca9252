"""Latency of the settings, interleaved so that other load slows all of them alike."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from nets.loading import load_model
from utils.compare.plan import Trial
from utils.compare.results import DONE
from utils.core.timing import Budget, interleave, timed
from utils.core.validation import SavedSection, read_json
from utils.engine.report import write_json
from utils.engine.runs import BEST

LATENCY_FILE = "latency.json"
SECONDS = 2.0  # per setting
MIN_ROUNDS = 10
MAX_ROUNDS = 200
WARMUP_ROUNDS = 3


class LatencyRecord(SavedSection):
    """The content of `latency.json`: setting -> mark of its trial, and -> milliseconds."""

    trials: dict[str, str]
    ms: dict[str, Annotated[float, Field(gt=0)]]


def measure_latency(out: Path, trials: Sequence[Trial], image: np.ndarray) -> dict[str, float]:
    """Measure the end-to-end latency (letterbox, network, NMS; batch 1) of every setting.

    `out/latency.json` keeps the measurement until a trial changes.

    Args:
        out: the comparison's folder.
        trials: a finished trial of each setting.
        image: RGB uint8 `(h, w, 3)`.

    Returns:
        Setting -> median milliseconds per image.

    Raises:
        UserError: the saved measurement is damaged.
    """
    path = out / LATENCY_FILE
    marks = {}
    for trial in trials:
        marks[trial.setting] = f"{trial.seed} {(trial.folder / DONE).stat().st_mtime_ns}"
    if path.is_file():
        saved = read_json(LatencyRecord, path, "; delete it to measure again")
        if saved.trials == marks and saved.ms.keys() == marks.keys():
            return saved.ms
    calls = {trial.setting: partial(load_model(trial.folder / BEST), image) for trial in trials}
    medians = interleaved_medians(calls, SECONDS)
    write_json(path, {"trials": marks, "ms": medians})
    return medians


def interleaved_medians(calls: Mapping[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Median milliseconds of interleaved functions, measured for about `seconds` each."""
    budget = Budget(seconds * len(calls), MIN_ROUNDS, MAX_ROUNDS, WARMUP_ROUNDS)
    clocks = {name: timed(call) for name, call in calls.items()}
    times = interleave(clocks, budget, "measuring latency")
    return {name: round(float(np.median(values)), 3) for name, values in times.items()}
