"""Saved results of a comparison."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from nets.inference.detections import Detections
from tests.dataset_files import NAMES
from tests.robustness.kinds.kind import Kind, to_json
from utils.compare.planning import plan as plans
from utils.compare.planning.controls import ControlRecord
from utils.compare.trials.latency import LatencyRecord
from utils.compare.trials.results import (
    CURVE,
    DETECTIONS,
    DONE,
    read_detections,
    read_result,
    write_detections,
)
from utils.core.schema import Config
from utils.core.validation import read_json
from utils.data.sample import Sample

SCORES = {"ap50_95": 0.5, "ap50": None}
METRICS = {"map50_95": 0.5, "map50": 0.75, "best_score": 0.3, "params": 5, "gflops": 1.5}
RECORD = {
    "truth": 12345,
    "train_seconds": 1.5,
    "metrics": {**METRICS, "per_class": {"cat": SCORES, "dog": SCORES}},
}
ROWS = b"epoch,loss,map50_95,seconds\n1,2.5,,0.4\n2,1.25,0.5,0.8\n"


def _trial(folder: Path) -> plans.Trial:
    (folder / DONE).write_bytes(to_json(RECORD))
    (folder / CURVE).write_bytes(ROWS)
    return plans.Trial("se", 0, folder, Config())


def _trial_json(folder: Path) -> Kind:
    trial = _trial(folder)
    load = lambda path: read_result(trial)  # noqa: E731
    return Kind(folder / DONE, load, (to_json(RECORD),), True, (RECORD,), to_json)


def _curve(folder: Path) -> Kind:
    trial = _trial(folder)
    return Kind(folder / CURVE, lambda path: read_result(trial), (ROWS,), True)


def _detections(folder: Path) -> Kind:
    trial, path = _trial(folder), folder / DETECTIONS
    boxes = np.array([[1, 2, 10, 20], [0, 0, 5, 5]], np.float32)
    scores, labels = np.array([0.9, 0.5], np.float32), np.array([0, 1])
    detections = Detections(boxes, scores, labels, NAMES, 30, 30)
    samples = [Sample(Path(f"{index}.png"), 30, 30) for index in range(2)]
    write_detections(path, [detections] * 2)
    with np.load(path) as arrays:
        value = dict(arrays)

    def load(path: Path) -> None:
        for image in read_detections(trial, samples, NAMES):
            assert image.boxes.shape == (len(image.scores), 4)

    return Kind(path, load, (path.read_bytes(),), False, (value,), _npz)


def _npz(value: Any) -> bytes:
    arrays = {}
    for key, item in value.items() if isinstance(value, dict) else {"a": value}.items():
        is_array = isinstance(item, np.ndarray)
        arrays[str(key)[:50]] = item if is_array else np.array(repr(item)[:50])
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()


def _records(folder: Path) -> Kind:
    """`latency.json` and `controls.json`."""
    latency = {"trials": {"se": "0 123"}, "ms": {"se": 1.5}}
    controls = {"se": {"of": "[]", "phi": {"feat1": {"name": "conv_control", "params": 10}}}}

    def load(path: Path) -> None:
        kind = LatencyRecord if b'"ms"' in path.read_bytes() else dict[str, ControlRecord]
        read_json(kind, path)

    values = (latency, controls)
    return Kind(folder / "a.json", load, tuple(map(to_json, values)), True, values, to_json)


KINDS = {
    "trial_json": _trial_json,
    "curve": _curve,
    "detections": _detections,
    "records": _records,
}
