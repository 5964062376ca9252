"""Results of finished trials, read back: scores, learning curves, detections."""

import csv
import io
import math
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
from pydantic import ConfigDict, Field

from nets.inference.detections import Detections
from utils.compare.planning.facts import Amount
from utils.compare.planning.plan import Trial
from utils.core.errors import UserError
from utils.core.inputs import read_file
from utils.core.outputs import write_file
from utils.core.validation import SavedSection, read_json
from utils.data.sample import Sample
from utils.metrics.coco import MAX_DETECTIONS

DONE = "trial.json"
CURVE = "results.csv"
DETECTIONS = "detections.npz"
DEFAULT_THRESHOLD = 0.25
MAX_CURVE_BYTES = 64 * 2**20
# Arrays of a file of detections: kind of values, number of dimensions
ARRAYS = {
    "boxes": ("f", 2),
    "scores": ("f", 1),
    "labels": ("i", 1),
    "image": ("i", 1),
    "images": ("i", 0),
}
DETECTION_BYTES = 8 * (4 + 1) + 4 * (1 + 1)
HEADER_BYTES = 10_000  # of all arrays

Fraction = Annotated[float, Field(ge=0, le=1)]


class _Saved(SavedSection):
    """Other keys belong to other readers."""

    model_config = ConfigDict(extra="ignore")


class ClassScores(_Saved):
    """The scores of a class; null if it has no objects."""

    ap50_95: Fraction | None
    ap50: Fraction | None


class TrialMetrics(_Saved):
    """What `read_result` reads of `metrics.json`."""

    map50_95: Fraction | None
    map50: Fraction | None
    best_score: Fraction | None
    params: Annotated[int, Field(ge=0)] | None
    gflops: Amount | None
    per_class: dict[str, ClassScores]


class TrialRecord(_Saved):
    """What `read_result` reads of `trial.json`."""

    truth: int
    detections: str = ""
    train_seconds: Amount | None
    machine: str = ""
    alone: bool = False
    metrics: TrialMetrics


class TestImages(Protocol):
    """The images that settings are scored on: a split of a dataset, or a file of objects."""

    @property
    def samples(self) -> Sequence[Sample]:
        """The images and their objects."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """What labels index."""


@dataclass(frozen=True)
class TrialResult:
    """A finished trial.

    Attributes:
        trial: the trial.
        ap: AP of the scored weights on the test images, points 0..100.
        ap50: AP50 of the same.
        per_class: name -> (ap, ap50), NaN if the class has no objects.
        threshold: score with the best F1.
        params: number of parameters; None if unknown.
        gflops: 10^9 operations per image; NaN if unknown.
        train_seconds: time in the training loop; NaN if unknown.
        machine: processor and library versions.
        is_alone: whether no other process took part of the processor meanwhile.
        detections: SHA-256 of the file of its detections; "" if an earlier version wrote it.
        curve: rows of the run's `results.csv`, one per epoch; metrics are fractions 0..1. Empty
            for foreign detections.
        truth: fingerprint of the test images' objects.
    """

    trial: Trial
    ap: float
    ap50: float
    per_class: dict[str, tuple[float, float]]
    threshold: float
    params: int | None
    gflops: float
    train_seconds: float
    curve: list[dict[str, float]]
    truth: int
    machine: str = ""
    is_alone: bool = False
    detections: str = ""


def read_result(trial: Trial, has_curve: bool = True) -> TrialResult:
    """Read the result of a finished trial.

    Args:
        trial: the trial.
        has_curve: whether its folder holds a learning curve.

    Raises:
        UserError: a file of it is missing or damaged; says what to do.
    """
    record = read_json(TrialRecord, trial.folder / DONE, _advice(trial))
    metrics = record.metrics
    return TrialResult(
        trial=trial,
        **scores(metrics),
        params=metrics.params,
        gflops=math.nan if metrics.gflops is None else metrics.gflops,
        train_seconds=math.nan if record.train_seconds is None else record.train_seconds,
        curve=_read_curve(trial.folder / CURVE) if has_curve else [],
        truth=record.truth,
        machine=record.machine,
        is_alone=record.alone,
        detections=record.detections,
    )


def scores(metrics: TrialMetrics) -> dict[str, Any]:
    """The fields of a `TrialResult` that follow from detections."""
    per_class = {}
    for name, each in metrics.per_class.items():
        per_class[name] = (_points(each.ap50_95), _points(each.ap50))
    return {
        "ap": _points(metrics.map50_95),
        "ap50": _points(metrics.map50),
        "per_class": per_class,
        "threshold": DEFAULT_THRESHOLD if metrics.best_score is None else metrics.best_score,
    }


def _advice(trial: Trial) -> str:
    return f"; delete {trial.folder / DONE} to evaluate the trial again"


def _points(fraction: float | None) -> float:
    return float("nan") if fraction is None else 100.0 * fraction


def _read_curve(path: Path) -> list[dict[str, float]]:
    text = read_file(path, max_bytes=MAX_CURVE_BYTES).decode("utf-8", "replace")
    rows = csv.DictReader(io.StringIO(text, newline=""))
    return [_read_row(row, f"{path}:{rows.line_num}") for row in rows]


def _read_row(row: dict[Any, Any], origin: str) -> dict[str, float]:
    """Convert a row; cells may be empty."""
    try:
        return {key: float(value) for key, value in row.items() if value}
    except (TypeError, ValueError):  # TypeError: more cells than columns
        raise UserError(
            f"{origin}: expected numbers in the columns of its header; delete the folder to train "
            "the trial again"
        ) from None


def fingerprint(samples: Sequence[Sample]) -> int:
    """A checksum of the images' sizes and objects, in order."""
    checksum = 0
    for sample in samples:
        for array in (sample.boxes, sample.labels, sample.difficult, sample.crowd):
            checksum = zlib.crc32(np.ascontiguousarray(array).tobytes(), checksum)
        checksum = zlib.crc32(f"{sample.width}x{sample.height}".encode(), checksum)
    return checksum


def write_detections(path: Path, detections: Sequence[Detections]) -> None:
    """Write the detections on all images.

    Arrays: `boxes` `(n, 4)` and `scores`, float32 or, as they came from elsewhere, float64;
    `labels`, `image` (index of the image, int32 `(n,)`), and `images` (number of images).
    """
    counts = [len(image_detections) for image_detections in detections]
    content = io.BytesIO()
    np.savez_compressed(
        content,
        boxes=np.concatenate([each.boxes for each in detections]),
        scores=np.concatenate([each.scores for each in detections]),
        labels=np.concatenate([each.labels for each in detections]).astype(np.int32),
        image=np.repeat(np.arange(len(detections), dtype=np.int32), counts),
        images=np.array(len(detections)),
    )
    write_file(path, content.getvalue())


def read_detections(
    trial: Trial, samples: Sequence[Sample], class_names: tuple[str, ...]
) -> list[Detections]:
    """Read the detections of a finished trial, one entry per image.

    Raises:
        UserError: the number of images differs, or the file is missing or damaged.
    """
    path = trial.folder / DETECTIONS
    per_image = max(trial.config.eval.max_detections, MAX_DETECTIONS * len(class_names))
    arrays = _read_arrays(path, len(samples) * per_image, _advice(trial))
    if arrays["images"].tolist() != len(samples):
        raise UserError(
            f"{trial.folder}: its detections are not on the {len(samples)} images of the split"
        )
    if not _are_valid(arrays, len(samples), len(class_names)):
        raise UserError(f"{path}: damaged{_advice(trial)}")
    bounds = np.searchsorted(arrays["image"], np.arange(1, len(samples)))
    boxes = np.split(arrays["boxes"], bounds)
    scores = np.split(arrays["scores"], bounds)
    labels = np.split(arrays["labels"].astype(np.int64), bounds)
    detections = []
    for index, sample in enumerate(samples):
        arrays_of_image = boxes[index], scores[index], labels[index]
        size = sample.width, sample.height
        detections.append(Detections(*arrays_of_image, class_names, *size, str(sample.path)))
    return detections


def _read_arrays(path: Path, limit: int, advice: str) -> dict[str, np.ndarray]:
    """Read what `write_detections` wrote, at most `limit` detections."""
    data = io.BytesIO(read_file(path))
    try:
        with zipfile.ZipFile(data) as archive:  # compressed: a small file may hold very much
            size = sum(record.file_size for record in archive.infolist())
        if size <= limit * DETECTION_BYTES + HEADER_BYTES:
            with np.load(data) as arrays:
                return {name: arrays[name] for name in ARRAYS}
    except Exception:  # fed arbitrary bytes, the two readers raise almost anything
        pass
    raise UserError(f"{path}: damaged{advice}")


def _are_valid(arrays: dict[str, np.ndarray], num_images: int, num_classes: int) -> bool:
    """Whether arrays are as `write_detections` describes them."""
    for name, (kind, dimensions) in ARRAYS.items():
        if arrays[name].dtype.kind != kind or arrays[name].ndim != dimensions:
            return False
    boxes, scores, labels, image, _ = (arrays[name] for name in ARRAYS)
    count = len(scores)
    return bool(
        (boxes.shape, labels.shape, image.shape) == ((count, 4), (count,), (count,))
        and np.isfinite(boxes).all()
        and ((scores >= 0) & (scores <= 1)).all()
        and ((labels >= 0) & (labels < num_classes)).all()
        and ((image >= 0) & (image < num_images)).all()
        and (np.diff(image) >= 0).all()
    )
