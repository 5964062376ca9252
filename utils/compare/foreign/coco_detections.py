"""Detections in COCO's results format, as other detectors write them.

`[{"image_id", "category_id", "bbox": [x, y, width, height], "score"}, ...]`; of other keys, only
`file_name` is read, which Ultralytics adds. https://cocodataset.org/#format-results
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from nets.inference.detections import Detections
from utils.compare.foreign.coco_truth import Box, CocoSection, Id, Truth, corners, read_json_file
from utils.core.errors import UserError
from utils.metrics.coco import MAX_DETECTIONS
from utils.metrics.pairs import flatten

LEAST_FOUND = 10  # objects that must be found at all to say something about their classes
OUTSIDE = 0.1  # of the image's side, that a box may reach beyond it
MANY = 0.2  # share of images


class Entry(CocoSection):
    """A detection."""

    image_id: Id
    category_id: int
    bbox: Box
    score: Annotated[float, Field(ge=0, le=1)]
    file_name: str | None = None


@dataclass(frozen=True)
class ForeignDetections:
    """The content of a file.

    Attributes:
        detections: of each test image, the 100 best of every class; boxes are float64 and not
            clipped.
        dropped: number of those beyond the 100, which COCO's AP does not count.
        repeated: number of exact repetitions, which count as false positives.
        is_ambiguous: whether the image ids are also file names of other images.
        are_boxes_odd: whether the best boxes lie outside many images, or all are tiny.
        are_classes_odd: whether most objects are detected as another class.
    """

    detections: list[Detections]
    dropped: int
    repeated: int
    is_ambiguous: bool
    are_boxes_odd: bool
    are_classes_odd: bool


def read_detections(
    path: Path, truth: Truth, category_names: Mapping[int, str] | None = None
) -> ForeignDetections:
    """Read a file of detections.

    Args:
        path: the file.
        truth: the test images.
        category_names: category id of the file -> name of the truth's category; None: the file
            has the truth's ids.

    Raises:
        UserError: it is not such a file, or names an image or a category that is none.
    """
    entries = read_json_file(list[Entry], path)
    ids, names = [each.image_id for each in entries], [each.file_name for each in entries]
    found, is_ambiguous = truth.images.find(ids, names, str(path))
    image = np.array(found, np.int64)
    label = np.array(_find_labels(entries, truth, category_names, path), np.int64)
    boxes = corners([each.bbox for each in entries])
    score = np.array([each.score for each in entries], np.float64)
    rows = np.column_stack([image, label, boxes, score])
    kept = _best(image, label, score, len(truth.class_names))
    detections = []
    bounds = np.searchsorted(image[kept], np.arange(1, len(truth.samples)))
    for sample, own in zip(truth.samples, np.split(kept, bounds), strict=True):
        values = boxes[own], score[own], label[own]
        size = sample.width, sample.height
        detections.append(Detections(*values, truth.class_names, *size, str(sample.path)))
    return ForeignDetections(
        detections=detections,
        dropped=len(entries) - len(kept),
        repeated=len(rows) - len(np.unique(rows, axis=0)),
        is_ambiguous=is_ambiguous,
        are_boxes_odd=_are_boxes_odd(detections),
        are_classes_odd=_are_classes_odd(truth, detections),
    )


def _find_labels(
    entries: Sequence[Entry], truth: Truth, names: Mapping[int, str] | None, path: Path
) -> list[int]:
    known = truth.labels
    if names is not None:
        known = {key: truth.class_names.index(name) for key, name in names.items()}
    for number, entry in enumerate(entries):
        if entry.category_id not in known:
            shown = ", ".join(f"{key} {truth.class_names[known[key]]}" for key in sorted(known)[:8])
            more = ", ..." if len(known) > 8 else ""
            raise UserError(
                f"{path}: entry {number}: category_id {entry.category_id}, expected one of {shown}"
                f"{more}; if the detector numbers its classes otherwise, say how in settings.yaml:"
                f" {path.parent.name}: {{categories: {{{entry.category_id}: NAME, ...}}}}"
            )
    return [known[entry.category_id] for entry in entries]


def _best(image: np.ndarray, label: np.ndarray, score: np.ndarray, classes: int) -> np.ndarray:
    """Indices of the 100 best of every image and class; by image, best first.

    Of equal scores, those that come first in the file are better, as in pycocotools.
    """
    order = np.lexsort((-score, image * classes + label))
    cell = (image * classes + label)[order]
    rank = np.arange(len(cell)) - np.searchsorted(cell, cell)
    kept = np.sort(order[rank < MAX_DETECTIONS])
    return kept[np.lexsort((-score[kept], image[kept]))]


def _are_boxes_odd(detections: Sequence[Detections]) -> bool:
    """Whether many of the images' best boxes lie outside, or all are tiny.

    Weak boxes of a detector that does not clip them may lie anywhere.
    """
    best = [(each.boxes[0], each.width, each.height) for each in detections if len(each)]
    known = [(box, width, height) for box, width, height in best if min(width, height) > 1]
    outside = [
        box[2] > (1 + OUTSIDE) * width or box[3] > (1 + OUTSIDE) * height
        for box, width, height in known
    ]
    return bool(known) and (np.mean(outside) > MANY or all((box <= 2).all() for box, *_ in known))


def _are_classes_odd(truth: Truth, detections: Sequence[Detections]) -> bool:
    """Whether the best detection on an object is mostly of another class."""
    objects, flat, pairs = flatten(truth.samples, detections)
    best = np.full(len(objects.label), len(flat.score))
    np.minimum.at(best, pairs.object, pairs.detection)
    found = (best < len(flat.score)) & ~objects.crowd
    right = flat.label[best[found]] == objects.label[found]
    return len(right) >= LEAST_FOUND and right.mean() < 0.5
