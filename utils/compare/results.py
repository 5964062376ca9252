"""What finished cells hold, read back: scores, course of the training, detections."""

import csv
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nets.inference.detections import Detections
from utils.compare.plan import Cell
from utils.core.errors import UserError
from utils.data.sample import Sample

DONE, DETECTIONS = "cell.json", "detections.npz"
HUNDRED = 100.0  # scores are told in points


@dataclass(frozen=True)
class Outcome:
    """A finished cell.

    Attributes:
        ap, ap50: of its best weights on the test images, points 0..100. per_class: name -> (ap, ap50), NaN where
            the class has no object. threshold: the score that gives the best F1.
        params: number. gflops: 10^9 operations a picture. train_seconds: of the training loop.
        curve: a row for each epoch, `results.csv`; metrics in 0..1, where measured.
        truth: fingerprint of the test images' objects.
    """

    cell: Cell
    ap: float
    ap50: float
    per_class: dict[str, tuple[float, float]]
    threshold: float
    params: int
    gflops: float
    train_seconds: float
    curve: list[dict[str, float]]
    truth: int


def read_outcome(cell: Cell) -> Outcome:
    """Read a finished cell."""
    content = json.loads((cell.folder / DONE).read_text(encoding="utf-8"))
    metrics = content["metrics"]
    return Outcome(
        cell=cell,
        ap=_points(metrics["map50_95"]),
        ap50=_points(metrics["map50"]),
        per_class={
            name: (_points(item["ap50_95"]), _points(item["ap50"]))
            for name, item in metrics["per_class"].items()
        },
        threshold=0.25 if metrics["best_score"] is None else metrics["best_score"],
        params=metrics["params"],
        gflops=metrics["gflops"],
        train_seconds=content["train_seconds"],
        curve=_read_curve(cell.folder / "results.csv"),
        truth=content["truth"],
    )


def _points(share: float | None) -> float:
    return float("nan") if share is None else HUNDRED * share


def _read_curve(path: Path) -> list[dict[str, float]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {key: float(value) for key, value in row.items() if value}
            for row in csv.DictReader(file)
        ]


def fingerprint(samples: Sequence[Sample]) -> int:
    """A number that changes with any object of the images, or their order."""
    value = 0
    for sample in samples:
        for array in (sample.boxes, sample.labels, sample.difficult, sample.crowd):
            value = zlib.crc32(np.ascontiguousarray(array).tobytes(), value)
        value = zlib.crc32(f"{sample.width}x{sample.height}".encode(), value)
    return value


def write_detections(path: Path, detections: Sequence[Detections]) -> None:
    """Keep the detections of all images: boxes float32 `(n, 4)`, scores, labels, and the index of the picture."""
    arrays: dict[str, Any] = {
        "boxes": np.concatenate(
            [np.zeros((0, 4), np.float32), *(found.boxes for found in detections)]
        ),
        "scores": np.concatenate(
            [np.zeros(0, np.float32), *(found.scores for found in detections)]
        ),
        "labels": np.concatenate(
            [np.zeros(0, np.int64), *(found.labels for found in detections)]
        ).astype(np.int32),
        "image": np.repeat(
            np.arange(len(detections), dtype=np.int32), [len(found) for found in detections]
        ),
        "images": np.array(len(detections)),
    }
    np.savez_compressed(path, **arrays)


def read_detections(
    cell: Cell, samples: Sequence[Sample], names: tuple[str, ...]
) -> list[Detections]:
    """The detections of a finished cell, one entry a picture.

    Raises:
        UserError: they are of another number of pictures.
    """
    with np.load(cell.folder / DETECTIONS) as arrays:
        if int(arrays["images"]) != len(samples):
            raise UserError(
                f"{cell.folder}: detections of other images than the {len(samples)} of the split"
            )
        ends = np.searchsorted(arrays["image"], np.arange(len(samples) + 1))
        boxes, scores, labels = arrays["boxes"], arrays["scores"], arrays["labels"].astype(np.int64)
    return [
        Detections(
            boxes[a:b],
            scores[a:b],
            labels[a:b],
            names,
            sample.width,
            sample.height,
            str(sample.path),
        )
        for sample, a, b in zip(samples, ends[:-1], ends[1:], strict=True)
    ]
