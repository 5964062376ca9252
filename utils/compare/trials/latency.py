"""Latency of the settings, interleaved so that other load slows all of them alike."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field

from nets.loading import load_model
from utils.compare.planning.plan import Trial
from utils.compare.statistics.paired import Interval, stats
from utils.compare.trials.results import DONE
from utils.core.errors import UserError
from utils.core.timing import interleaved_times, medians
from utils.core.validation import SavedSection, read_json
from utils.engine.report import write_json
from utils.engine.runs import BEST

LATENCY_FILE = "latency.json"
SECONDS = 2.0  # per setting


Milliseconds = Annotated[float, Field(gt=0)]


class Latency(NamedTuple):
    """Milliseconds of one image.

    Attributes:
        median: the median.
        interval: 95% interval of the median, by the ranks of the times.
    """

    median: float
    interval: Interval


class LatencyRecord(SavedSection):
    """The content of `latency.json`.

    Attributes:
        trials: setting -> mark of its trial.
        ms: setting -> median milliseconds.
        low: setting -> lower end of its interval; files of earlier versions lack the ends.
        high: setting -> upper end.
    """

    trials: dict[str, str]
    ms: dict[str, Milliseconds]
    low: dict[str, Milliseconds] = Field(default_factory=dict)
    high: dict[str, Milliseconds] = Field(default_factory=dict)


def measure_latency(out: Path, trials: Sequence[Trial], image: np.ndarray) -> dict[str, Latency]:
    """Measure the end-to-end latency (letterbox, network, NMS; batch 1) of every setting.

    `out/latency.json` keeps the measurement until a trial changes.

    Args:
        out: the comparison's folder.
        trials: a finished trial of each setting.
        image: RGB uint8 `(h, w, 3)`.

    Returns:
        Setting -> milliseconds per image.

    Raises:
        UserError: the saved measurement is damaged.
    """
    path = out / LATENCY_FILE
    marks = {}
    for trial in trials:
        marks[trial.setting] = f"{trial.seed} {(trial.folder / DONE).stat().st_mtime_ns}"
    if path.is_file():
        saved = _read_record(out)
        if saved.trials == marks and _is_complete(saved):
            return _latencies(saved)
    calls = {trial.setting: partial(load_model(trial.folder / BEST), image) for trial in trials}
    times = interleaved_times(calls, SECONDS)
    ends = {name: _median_interval(values) for name, values in times.items()}
    measured = LatencyRecord(
        trials=marks,
        ms=medians(times),
        low={name: interval.low for name, interval in ends.items()},
        high={name: interval.high for name, interval in ends.items()},
    )
    write_json(path, measured.model_dump())
    return _latencies(measured)


def _read_record(out: Path) -> LatencyRecord:
    return read_json(LatencyRecord, out / LATENCY_FILE, "; delete it to measure again")


def read_latency(out: Path) -> dict[str, Latency]:
    """Setting -> milliseconds per image, as last measured in a comparison's folder.

    Raises:
        UserError: the measurement is missing or damaged.
    """
    record = _read_record(out)
    if not _is_complete(record):
        raise UserError(f"{out / LATENCY_FILE}: expected the same settings in all of its parts")
    return _latencies(record)


def _is_complete(record: LatencyRecord) -> bool:
    parts = (record.ms, record.low, record.high)
    return all(part.keys() == record.trials.keys() for part in parts)


def _latencies(record: LatencyRecord) -> dict[str, Latency]:
    latencies = {}
    for name, median in record.ms.items():
        latencies[name] = Latency(median, Interval(record.low[name], record.high[name]))
    return latencies


def _median_interval(times: np.ndarray) -> Interval:
    """95% interval of the median: at least six times, without an assumption on their shape."""
    interval = stats.quantile_test(times, p=0.5).confidence_interval()
    return Interval(round(float(interval.low), 3), round(float(interval.high), 3))
