"""Evaluation of detections: COCO AP, VOC AP, precision-recall curves, confusion matrix."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nets.inference.detections import Detections
from utils.core.class_names import padded
from utils.data.sample import Sample
from utils.metrics import coco, confusion, voc
from utils.metrics.pairs import FlatDetections, FlatObjects, flatten, split_by_class

RECALLS = np.linspace(0, 1, 101)  # where `ClassMetrics.precision` is sampled


@dataclass(frozen=True)
class ClassMetrics:
    """Results for one class: fractions 0..1, NaN if the class has no objects.

    Attributes:
        ap50: COCO AP at IoU 0.5.
        ap50_95: COCO AP averaged over IoU 0.5:0.05:0.95.
        voc_ap50: VOC AP at IoU 0.5, area under the curve.
        voc_ap50_11point: VOC AP at IoU 0.5, mean of 11 points.
        images: images that contain the class; crowd regions do not count.
        objects: objects of the class; crowd regions do not count.
        precision: float64 `(101,)`, interpolated precision at IoU 0.5 at the recalls `RECALLS`.
        best_f1: the highest F1 at IoU 0.5.
        best_score: the score threshold that gives `best_f1`.
    """

    ap50: float
    ap50_95: float
    voc_ap50: float
    voc_ap50_11point: float
    images: int
    objects: int
    precision: np.ndarray
    best_f1: float
    best_score: float

    def to_json(self) -> dict[str, Any]:
        """Return plain floats, ints and None (for NaN), without the curve."""
        return {**_fractions(self), "images": self.images, "objects": self.objects}


@dataclass(frozen=True)
class Metrics:
    """Results for a dataset: fractions 0..1, means over the classes with objects, NaN without any.

    Attributes:
        map50: COCO AP at IoU 0.5.
        map50_95: COCO AP averaged over IoU 0.5:0.05:0.95.
        map75: COCO AP at IoU 0.75.
        map_small: `map50_95` of objects below 32^2 pixels.
        map_medium: `map50_95` of objects of 32^2 to 96^2 pixels.
        map_large: `map50_95` of objects above 96^2 pixels.
        ar100: COCO's average recall with 100 detections per image.
        voc_ap50: VOC AP at IoU 0.5, area under the curve.
        voc_ap50_11point: VOC AP at IoU 0.5, mean of 11 points.
        best_f1: the highest F1 of the detections of all classes together, at IoU 0.5.
        best_score: the score threshold that gives `best_f1`.
        per_class: class name -> its results, in the order of the class names.
        confusion: int64 `(classes + 1, classes + 1)`, row = true class, column = predicted class,
            last = background.
        images: number of images evaluated.
    """

    map50: float
    map50_95: float
    map75: float
    map_small: float
    map_medium: float
    map_large: float
    ar100: float
    voc_ap50: float
    voc_ap50_11point: float
    best_f1: float
    best_score: float
    per_class: dict[str, ClassMetrics]
    confusion: np.ndarray
    images: int

    def to_json(self) -> dict[str, Any]:
        """Return plain floats, ints and None (for NaN), fractions with six digits; no curves."""
        return {
            **_fractions(self),
            "per_class": {name: metrics.to_json() for name, metrics in self.per_class.items()},
            "confusion": self.confusion.tolist(),
            "images": self.images,
        }

    def table(self) -> str:
        """Aligned text: one row per class and a last row with the means, AP in percent."""
        rows: list[tuple[str, ...]] = [
            ("class", "images", "objects", "AP50", "AP50-95", "VOC AP50")
        ]
        for name, metrics in self.per_class.items():
            fractions = (metrics.ap50, metrics.ap50_95, metrics.voc_ap50)
            rows.append(_table_row(name, metrics.images, metrics.objects, fractions))
        objects = sum(metrics.objects for metrics in self.per_class.values())
        means = (self.map50, self.map50_95, self.voc_ap50)
        rows.append(_table_row("mean", self.images, objects, means))
        names, *columns = zip(*rows, strict=True)
        widths = [max(map(len, column)) for column in columns]
        lines = []
        for name, (_, *numbers) in zip(padded(names), rows, strict=True):
            aligned = [text.rjust(width) for text, width in zip(numbers, widths, strict=True)]
            lines.append("  ".join([name, *aligned]))
        rule = "-" * len(lines[0])
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def evaluate(
    samples: Sequence[Sample], detections: Sequence[Detections], class_names: Sequence[str]
) -> Metrics:
    """Compare detections with the objects in the same images.

    Box coordinates are continuous edges, so a side is `x2 - x1`. VOC's devkit adds one because its
    boxes name the first and last pixel inside; with edges the same box has the same IoU without it.

    COCO AP has no `difficult` flag and counts such objects; VOC AP and the confusion matrix ignore
    them. Crowd regions never count as objects, nor detections inside them as errors. COCO's small,
    medium and large refer to the area of the box, since samples have no segmentation. COCO AP uses
    the 100 best detections per class and image, VOC AP all of them.

    Args:
        samples: the images with their objects, boxes in pixels of the original image.
        detections: the detections in each of these images, in the same order.
        class_names: class names that the labels of both index.

    Raises:
        ValueError: the lists differ in length, or a label is not an index into `class_names`.
    """
    if len(samples) != len(detections):
        raise ValueError(f"{len(samples)} samples, but detections of {len(detections)} images")
    objects, flat, pairs = flatten(samples, detections)
    classes = len(class_names)
    _check_labels("object", objects.label, classes)
    _check_labels("detection", flat.label, classes)
    coco_result = coco.evaluate(objects, flat, pairs, classes)
    voc_result = voc.evaluate(objects, flat, pairs, classes)
    counts = ~coco_result.ignored
    best_f1, best_score = _best_f1(
        flat.score[counts], coco_result.hit[counts], int((~objects.crowd).sum())
    )
    precision = coco_result.precision
    return Metrics(
        map50=_mean(precision[0, :, :, 0]),
        map50_95=_mean(precision[..., 0]),
        map75=_mean(precision[5, :, :, 0]),
        map_small=_mean(precision[..., 1]),
        map_medium=_mean(precision[..., 2]),
        map_large=_mean(precision[..., 3]),
        ar100=_mean(coco_result.recall[..., 0]),
        voc_ap50=_mean(voc_result.all_point),
        voc_ap50_11point=_mean(voc_result.eleven_point),
        best_f1=best_f1,
        best_score=best_score,
        per_class=_per_class(objects, flat, coco_result, voc_result, class_names),
        confusion=confusion.confusion_matrix(objects, flat, pairs, classes),
        images=len(samples),
    )


def _check_labels(kind: str, labels: np.ndarray, classes: int) -> None:
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(
            f"{kind} labels {labels.min()} to {labels.max()}, but there are {classes} classes"
        )


def _per_class(
    objects: FlatObjects,
    detections: FlatDetections,
    coco_result: coco.CocoResult,
    voc_result: voc.VocResult,
    class_names: Sequence[str],
) -> dict[str, ClassMetrics]:
    objects_by_class = split_by_class(objects.label, len(class_names))
    detections_by_class = split_by_class(detections.label, len(class_names))
    per_class = {}
    for label, name in enumerate(class_names):
        own = objects_by_class[label]
        own = own[~objects.crowd[own]]
        detected = detections_by_class[label]
        detected = detected[~coco_result.ignored[detected]]
        best_f1, best_score = _best_f1(
            detections.score[detected], coco_result.hit[detected], len(own)
        )
        precision = coco_result.precision[:, :, label, 0]
        per_class[name] = ClassMetrics(
            ap50=_mean(precision[0]),
            ap50_95=_mean(precision),
            voc_ap50=float(voc_result.all_point[label]),
            voc_ap50_11point=float(voc_result.eleven_point[label]),
            images=len(np.unique(objects.image[own])),
            objects=len(own),
            precision=precision[0],
            best_f1=best_f1,
            best_score=best_score,
        )
    return per_class


def _best_f1(score: np.ndarray, hit: np.ndarray, positives: int) -> tuple[float, float]:
    """The highest F1 over all score thresholds, and the threshold; NaN without objects."""
    if not positives:
        return float("nan"), float("nan")
    if not len(score):
        return 0.0, float("nan")
    order = np.argsort(-score, kind="stable")
    f1 = 2 * np.cumsum(hit[order]) / (np.arange(1, len(score) + 1) + positives)
    # a threshold takes all detections of equal score, or none of them
    ends = np.flatnonzero(np.diff(score[order], append=-np.inf))
    best = ends[np.argmax(f1[ends])]
    return float(f1[best]), float(score[order][best])


def _mean(values: np.ndarray) -> float:
    valid = values[~np.isnan(values)]
    return float(valid.mean()) if valid.size else float("nan")


def _fractions(metrics: ClassMetrics | Metrics) -> dict[str, float | None]:
    """The fractions with six digits, None for NaN."""
    fractions: dict[str, float | None] = {}
    for key, value in vars(metrics).items():
        if isinstance(value, float):
            fractions[key] = None if np.isnan(value) else round(value, 6)
    return fractions


def _table_row(name: str, images: int, objects: int, fractions: Sequence[float]) -> tuple[str, ...]:
    percents = ["-" if np.isnan(value) else f"{100 * value:.1f}" for value in fractions]
    return (name, str(images), str(objects), *percents)
