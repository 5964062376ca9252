"""Checks that turn raw annotations into samples."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from utils.core.progress import progress_bar
from utils.data.dataset_report import DatasetReport
from utils.data.duplicates import identical_files
from utils.data.headers import Header, read_header
from utils.data.sample import Sample


@dataclass
class RawAnnotation:
    """The objects of one image as its annotation states them, before any check.

    Attributes:
        path: the image file, which exists.
        source: the annotation, for messages.
        size: (width, height) that the annotation states, in pixels.
        relative: boxes are fractions of the image's width and height.
        one_based: corners are pixel numbers from 1, both inclusive (Pascal VOC).
        boxes: x1 y1 x2 y2 of each object, as written.
        labels: class index of each object.
        difficult: Pascal VOC's flag of each object.
        crowd: COCO's flag of each object.
    """

    path: Path
    source: str
    size: tuple[int, int] | None = None
    relative: bool = False
    one_based: bool = False
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)

    def add(
        self,
        box: tuple[float, float, float, float],
        label: int,
        difficult: bool = False,
        crowd: bool = False,
    ) -> None:
        """Add one object."""
        self.boxes.append(box)
        self.labels.append(label)
        self.difficult.append(difficult)
        self.crowd.append(crowd)


def build_samples(
    annotations: Sequence[RawAnnotation],
    report: DatasetReport,
    workers: int = 8,
    progress: bool = True,
) -> list[Sample]:
    """Check the images and clean the boxes.

    Args:
        annotations: one per image; a repeated image is ignored, an undecodable one skipped.
        report: report that counts the repairs.
        workers: threads that read the image headers; the result does not depend on it.
        progress: show a progress bar.

    Returns:
        The samples, in the order of `annotations`.
    """
    annotations = _without_repeats(annotations, report)
    paths = [annotation.path for annotation in annotations]
    headers = map_in_threads(read_header, paths, workers, "checking images", progress)
    checked = zip(paths, headers, strict=True)
    sizes = {path: header.file_size for path, header in checked if header.size}
    for _, duplicate in identical_files(sizes):
        report.note("image identical to another", duplicate)
    samples = []
    for annotation, header in zip(annotations, headers, strict=True):
        for rule in header.rules:
            report.note(rule, header.reason or annotation.path)
        if header.size is not None:
            samples.append(_build_sample(annotation, header, report))
    return samples


def _without_repeats(
    annotations: Sequence[RawAnnotation], report: DatasetReport
) -> list[RawAnnotation]:
    unique: dict[Path, RawAnnotation] = {}
    for annotation in annotations:
        if annotation.path in unique:
            report.note("image listed twice", annotation.path)
        else:
            unique[annotation.path] = annotation
    return list(unique.values())


def _build_sample(annotation: RawAnnotation, header: Header, report: DatasetReport) -> Sample:
    size = header.size
    assert size is not None
    if annotation.size and all(annotation.size) and annotation.size != size:
        report.note("size differs from annotation", annotation.source)
    boxes, keep = clean_boxes(annotation, size, report)
    crowd = np.array(annotation.crowd, np.bool_)[keep]
    report.note("crowd region", annotation.source, int(crowd.sum()))
    return Sample(
        path=annotation.path,
        width=size[0],
        height=size[1],
        boxes=boxes,
        labels=np.array(annotation.labels, np.int64)[keep],
        difficult=np.array(annotation.difficult, np.bool_)[keep],
        crowd=crowd,
        file_size=header.file_size,
        modified=header.modified,
    )


def clean_boxes(
    annotation: RawAnnotation, size: tuple[int, int], report: DatasetReport
) -> tuple[np.ndarray, np.ndarray]:
    """Order the corners of an image's boxes, clip the boxes, drop empty and repeated ones.

    Args:
        annotation: the boxes as written.
        size: (width, height) of the image, in pixels.
        report: report that counts the repairs.

    Returns:
        boxes float32 `(n, 4)`, xyxy pixels inside the image; and their int64 indices `(n,)` among
        the boxes of `annotation`.
    """
    source = annotation.source
    raw = np.asarray(annotation.boxes, np.float64).reshape(-1, 4)
    low = np.minimum(raw[:, :2], raw[:, 2:])
    high = np.maximum(raw[:, :2], raw[:, 2:])
    boxes = np.concatenate([low, high], axis=1)
    report.note("box with swapped corners", source, int((boxes != raw).any(1).sum()))
    limit = np.tile(np.array(size, np.float64), 2)
    if annotation.one_based:
        boxes[:, :2] -= 1
    if annotation.relative:
        boxes *= limit
    clipped = np.clip(boxes, 0, limit).astype(np.float32)
    beyond = (np.abs(clipped - boxes) > 1 + 1e-6).any(1)
    report.note("box beyond the image", source, int(beyond.sum()))
    nonempty = np.flatnonzero((clipped[:, 2:] > clipped[:, :2]).all(1))
    report.note("box empty", source, len(clipped) - len(nonempty))
    unique: dict[tuple, int] = {}
    for index in nonempty.tolist():
        corners = np.round(clipped[index], 2).tolist()
        unique.setdefault((annotation.labels[index], annotation.crowd[index], *corners), index)
    report.note("box repeated", source, len(nonempty) - len(unique))
    keep = np.array(list(unique.values()), np.int64)
    return clipped[keep], keep


def map_in_threads(
    function: Callable, items: Sequence, workers: int, title: str, progress: bool = True
) -> list:
    """`[function(item) for item in items]` in threads, with a progress bar."""
    with ThreadPoolExecutor(max(workers, 2)) as pool:
        results = pool.map(function, items)
        return list(progress_bar(results, desc=title, total=len(items), show=progress))
