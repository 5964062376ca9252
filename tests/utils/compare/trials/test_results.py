"""Saved results that are damaged are named, with what to do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.utils.compare.attacks import edit_json
from utils.compare.planning import controls
from utils.compare.planning.plan import Plan, Trial
from utils.compare.trials import latency
from utils.compare.trials.results import CURVE, DETECTIONS, DONE, read_detections, read_result
from utils.core.errors import UserError
from utils.data.loading import load_dataset

pytestmark = pytest.mark.slow  # a finished comparison takes 20 s to make


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:50]), "not valid JSON"),
        (lambda path: path.write_text("[]"), "expected an object, got a value of type list"),
        (lambda path: path.write_text("{}"), "truth is missing"),
        (
            lambda path: edit_json(path, "truth", value="x"),
            "truth: expected a valid integer, got 'x'",
        ),
        (lambda path: edit_json(path, "metrics", "map50", value=7), "metrics.map50: expected"),
        (
            lambda path: edit_json(path, "metrics", "per_class", value=[]),
            "metrics.per_class: expected",
        ),
        (lambda path: path.unlink(), "no such file"),
    ],
)
def test_a_damaged_result_is_named(
    damage: Callable[[Path], object], words: str, copied: Plan
) -> None:
    path = copied.trials[0].folder / DONE
    damage(path)
    with pytest.raises(UserError) as caught:
        read_result(copied.trials[0])
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and words in message and "\n" not in message
    assert message.endswith("to evaluate the trial again") or words == "no such file"


@pytest.mark.parametrize("cell", ["abc", "1,2,3,4,5,6,7,8,9,10,11,12,13"])
def test_a_damaged_curve_is_named(cell: str, copied: Plan) -> None:
    path = copied.trials[0].folder / CURVE
    path.write_text(path.read_text() + f"{cell}\n")
    with pytest.raises(UserError, match=r"results\.csv:\d+: expected numbers .* delete the folder"):
        read_result(copied.trials[0])


def detections_of(trial: Trial) -> None:
    split = load_dataset(trial.config.data, "val", trial.config.input_size)
    read_detections(trial, split.samples, split.class_names)


ARRAYS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "NaN": lambda arrays: arrays["boxes"].fill(np.nan),
    "scores beyond 1": lambda arrays: arrays["scores"].fill(2),
    "unknown labels": lambda arrays: arrays["labels"].fill(99),
    "unknown images": lambda arrays: arrays["image"].fill(99),
    "shapes that disagree": lambda arrays: arrays.update(scores=arrays["scores"][1:]),
    "boxes without corners": lambda arrays: arrays.update(boxes=arrays["boxes"].ravel()),
    "text": lambda arrays: arrays.update(labels=arrays["labels"].astype(str)),
    "missing": lambda arrays: arrays.pop("labels"),
    "a bomb": lambda arrays: arrays.update(more=np.zeros(10_000_000)),
    "objects": lambda arrays: arrays.update(labels=np.array([{}], dtype=object)),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_damaged_arrays_are_refused(kind: str, copied: Plan) -> None:
    path = copied.trials[1].folder / DETECTIONS
    detections_of(copied.trials[1])
    arrays = dict(np.load(path))
    assert len(arrays["scores"]) > 1
    ARRAYS[kind](arrays)
    np.savez_compressed(path, **arrays)
    with pytest.raises(UserError, match=r"detections\.npz: damaged; delete .* evaluate the trial"):
        detections_of(copied.trials[1])


def test_an_archive_that_is_cut_short_is_refused(copied: Plan) -> None:
    path = copied.trials[1].folder / DETECTIONS
    for data in (path.read_bytes()[:-30], b"", b"\x80\x04."):
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"detections\.npz: damaged"):
            detections_of(copied.trials[1])


@pytest.mark.parametrize("text", ["[]", '{"trials": 3}', '{"trials": {}, "ms": {"se": "x"}}', "{"])
def test_a_damaged_measurement_is_named(text: str, copied: Plan) -> None:
    (copied.out / latency.LATENCY_FILE).write_text(text)
    with pytest.raises(UserError, match=r"latency\.json: .*; delete it to measure again"):
        latency.measure_latency(copied.out, copied.trials[:1], np.zeros((9, 9, 3), np.uint8))
    record = text.replace("ms", "of") if "ms" in text else text
    (copied.out / controls.CONTROLS_FILE).write_text(record)
    with pytest.raises(UserError, match=r"controls\.json: .*; delete it to measure again"):
        controls.with_controls(copied, "latency")
