"""Results of finished trials, read back: scores, learning curves, detections."""

import csv
import io
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nets.inference.detections import Detections
from utils.compare.plan import Trial
from utils.core.errors import UserError
from utils.core.files import write_file
from utils.data.sample import Sample

DONE = "trial.json"
DETECTIONS = "detections.npz"
DEFAULT_THRESHOLD = 0.25


@dataclass(frozen=True)
class TrialResult:
    """A finished trial.

    Attributes:
        trial: the trial.
        ap: AP of the best weights on the test images, points 0..100.
        ap50: AP50 of the same.
        per_class: name -> (ap, ap50), NaN if the class has no objects.
        threshold: score with the best F1.
        params: number of parameters.
        gflops: 10^9 operations per image.
        train_seconds: time in the training loop.
        curve: rows of the run's `results.csv`, one per epoch; metrics are fractions 0..1.
        truth: fingerprint of the test images' objects.
    """

    trial: Trial
    ap: float
    ap50: float
    per_class: dict[str, tuple[float, float]]
    threshold: float
    params: int
    gflops: float
    train_seconds: float
    curve: list[dict[str, float]]
    truth: int


def read_result(trial: Trial) -> TrialResult:
    """Read the result of a finished trial."""
    content = json.loads((trial.folder / DONE).read_text(encoding="utf-8"))
    metrics = content["metrics"]
    per_class = {}
    for name, scores in metrics["per_class"].items():
        per_class[name] = (_points(scores["ap50_95"]), _points(scores["ap50"]))
    threshold = metrics["best_score"]
    return TrialResult(
        trial=trial,
        ap=_points(metrics["map50_95"]),
        ap50=_points(metrics["map50"]),
        per_class=per_class,
        threshold=DEFAULT_THRESHOLD if threshold is None else threshold,
        params=metrics["params"],
        gflops=metrics["gflops"],
        train_seconds=content["train_seconds"],
        curve=_read_curve(trial.folder / "results.csv"),
        truth=content["truth"],
    )


def _points(fraction: float | None) -> float:
    return float("nan") if fraction is None else 100.0 * fraction


def _read_curve(path: Path) -> list[dict[str, float]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{key: float(value) for key, value in row.items() if value} for row in rows]


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

    Arrays: `boxes` float32 `(n, 4)`, `scores`, `labels`, `image` (index of the image, int32
    `(n,)`), and `images` (number of images).
    """
    counts = [len(image_detections) for image_detections in detections]
    content = io.BytesIO()
    np.savez_compressed(
        content,
        boxes=np.concatenate([each.boxes for each in detections]).astype(np.float32),
        scores=np.concatenate([each.scores for each in detections]).astype(np.float32),
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
        UserError: the number of images differs.
    """
    with np.load(trial.folder / DETECTIONS) as arrays:
        if int(arrays["images"]) != len(samples):
            raise UserError(
                f"{trial.folder}: its detections are not on the {len(samples)} images of the split"
            )
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
