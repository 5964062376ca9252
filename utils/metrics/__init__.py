"""The one evaluator of detections: COCO AP, VOC AP, precision-recall curves and a confusion matrix."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nets.inference.detections import Detections
from utils.data.sample import Sample
from utils.metrics import coco, confusion, voc
from utils.metrics.pairs import Found, Objects, flatten, split_by_class

RECALLS = np.linspace(0, 1, 101)  # where `ClassMetrics.precision` is sampled

__all__ = ["RECALLS", "ClassMetrics", "Metrics", "evaluate"]


@dataclass(frozen=True)
class ClassMetrics:
    """Results for one class; fractions 0..1, NaN where the class has no object to find.

    Attributes:
        ap50, ap50_95: COCO AP at IoU 0.5 and averaged over 0.5:0.05:0.95.
        voc_ap50, voc_ap50_11point: VOC AP at IoU 0.5, area under the curve and 11-point.
        images, objects: images that contain the class and its objects in them, crowd regions not counted.
        precision: float64 `(101,)`, interpolated precision at IoU 0.5 at the recalls `RECALLS`.
        best_f1, best_score: the highest F1 at IoU 0.5 and the score threshold that gives it.
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
        fractions = ("ap50", "ap50_95", "voc_ap50", "voc_ap50_11point", "best_f1", "best_score")
        return {
            **{key: _plain(getattr(self, key)) for key in fractions},
            "images": self.images,
            "objects": self.objects,
        }


@dataclass(frozen=True)
class Metrics:
    """Results for a dataset; fractions 0..1, means over the classes that have objects, NaN where none has.

    Attributes:
        map50, map75, map50_95: COCO AP at IoU 0.5, 0.75 and averaged over 0.5:0.05:0.95.
        map_small, map_medium, map_large: map50_95 of objects below 32^2, 32^2..96^2 and above 96^2 pixels.
        ar100: COCO's average recall with 100 detections a picture.
        voc_ap50, voc_ap50_11point: VOC AP at IoU 0.5, area under the curve and 11-point.
        best_f1, best_score: the highest F1 of all classes' detections together (IoU 0.5), and its score threshold.
        per_class: class name -> its results, in the order of the class list.
        confusion: int64 `(classes + 1, classes + 1)`, row = true, column = predicted, last = background.
        images: images evaluated.
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
        """Plain floats, ints and None (for NaN), fractions with six digits; curves are left out."""
        plain = {
            key: _plain(value) for key, value in vars(self).items() if isinstance(value, float)
        }
        return {
            **plain,
            "per_class": {name: item.to_json() for name, item in self.per_class.items()},
            "confusion": self.confusion.tolist(),
            "images": self.images,
        }

    def table(self) -> str:
        """Aligned text: one row a class and a last row with the means, AP in percent."""
        head = ("class", "images", "objects", "AP50", "AP50-95", "VOC AP50")
        rows = [
            (
                name,
                str(item.images),
                str(item.objects),
                *map(_percent, (item.ap50, item.ap50_95, item.voc_ap50)),
            )
            for name, item in self.per_class.items()
        ]
        objects = sum(item.objects for item in self.per_class.values())
        means = map(_percent, (self.map50, self.map50_95, self.voc_ap50))
        rows = [head, *rows, ("mean", str(self.images), str(objects), *means)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in rows
        ]
        rule = "-" * len(lines[0])
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def evaluate(
    samples: Sequence[Sample], detections: Sequence[Detections], names: Sequence[str]
) -> Metrics:
    """Compare detections with the objects of the same images, in the same order.

    Boxes are continuous edges in pixels of the original image, so a side is `x2 - x1`. VOC's devkit adds one
    because its boxes name the first and last pixel inside; with edges the same box has the same IoU without it.

    COCO AP knows no `difficult` flag: such objects are ordinary ones there, and are left out by VOC AP and the
    confusion matrix. Crowd regions are never counted as objects, and detections inside them not as errors. COCO's
    small, medium and large go by the area of the box, as records carry no segmentation. COCO AP counts the 100 best
    detections a class and image, VOC AP all that are given.

    Raises:
        ValueError: the lists differ in length, or a label is not an index into `names`.
    """
    if len(samples) != len(detections):
        raise ValueError(f"{len(samples)} records, but detections of {len(detections)} images")
    objects, found, pairs = flatten(samples, detections)
    for kind, labels in (("object", objects.label), ("detection", found.label)):
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(names):
            raise ValueError(
                f"{kind} labels {labels.min()} to {labels.max()}, but there are {len(names)} classes"
            )
    result = coco.evaluate(objects, found, pairs, len(names))
    voc_result = voc.evaluate(objects, found, pairs, len(names))
    counted = ~result.ignored
    best_f1, best_score = _best_f1(
        found.score[counted], result.hit[counted], int((~objects.crowd).sum())
    )
    precision = result.precision
    return Metrics(
        map50=_mean(precision[0, :, :, 0]),
        map50_95=_mean(precision[..., 0]),
        map75=_mean(precision[5, :, :, 0]),
        map_small=_mean(precision[..., 1]),
        map_medium=_mean(precision[..., 2]),
        map_large=_mean(precision[..., 3]),
        ar100=_mean(result.recall[..., 0]),
        voc_ap50=_mean(voc_result.all_point),
        voc_ap50_11point=_mean(voc_result.eleven_point),
        best_f1=best_f1,
        best_score=best_score,
        per_class=_per_class(objects, found, result, voc_result, names),
        confusion=confusion.matrix(objects, found, pairs, len(names)),
        images=len(samples),
    )


def _per_class(
    objects: Objects,
    found: Found,
    result: coco.CocoResult,
    voc_result: voc.VocResult,
    names: Sequence[str],
) -> dict[str, ClassMetrics]:
    owned = split_by_class(objects.label, len(names))
    detected = split_by_class(found.label, len(names))
    rows = {}
    for k, name in enumerate(names):
        own = owned[k][~objects.crowd[owned[k]]]
        index = detected[k][~result.ignored[detected[k]]]
        best_f1, best_score = _best_f1(found.score[index], result.hit[index], len(own))
        precision = result.precision[:, :, k, 0]
        rows[name] = ClassMetrics(
            ap50=_mean(precision[0]),
            ap50_95=_mean(precision),
            voc_ap50=float(voc_result.all_point[k]),
            voc_ap50_11point=float(voc_result.eleven_point[k]),
            images=len(np.unique(objects.image[own])),
            objects=len(own),
            precision=precision[0],
            best_f1=best_f1,
            best_score=best_score,
        )
    return rows


def _best_f1(score: np.ndarray, hit: np.ndarray, positives: int) -> tuple[float, float]:
    """The highest F1 over all score thresholds, and the threshold; NaN without objects or detections."""
    if not positives or not len(score):
        return (0.0 if positives else float("nan")), float("nan")
    order = np.argsort(-score, kind="stable")
    f1 = 2 * np.cumsum(hit[order]) / (np.arange(1, len(score) + 1) + positives)
    ends = np.flatnonzero(
        np.diff(score[order], append=-np.inf)
    )  # a threshold takes all equal scores or none
    best = ends[np.argmax(f1[ends])]
    return float(f1[best]), float(score[order][best])


def _mean(values: Iterable[float] | np.ndarray) -> float:
    kept = np.asarray(values)
    kept = kept[~np.isnan(kept)]
    return float(kept.mean()) if kept.size else float("nan")


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 6)


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.1f}"
