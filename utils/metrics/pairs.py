"""The whole dataset as flat arrays, and every (detection, object) pair that overlaps enough to matter."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask

from nets.inference.detections import Detections
from utils.data.sample import Sample

MIN_IOU = 0.5  # the lowest threshold of COCO AP, VOC AP and the confusion matrix: pairs below it never match


@dataclass(frozen=True)
class Objects:
    """Ground truth of all images, in image order: `(n,)` arrays, areas in square pixels."""

    image: np.ndarray
    label: np.ndarray
    area: np.ndarray
    difficult: np.ndarray
    crowd: np.ndarray


@dataclass(frozen=True)
class Found:
    """Detections of all images, by image and within it best score first: `(n,)` arrays, areas in square pixels."""

    image: np.ndarray
    label: np.ndarray
    area: np.ndarray
    score: np.ndarray


@dataclass(frozen=True)
class Pairs:
    """Pairs of one image with IoU >= 0.5, of any classes: indices into `Found` and `Objects`, ordered by both.

    For a crowd region the overlap is COCO's: intersection over the area of the detection.
    """

    found: np.ndarray
    object: np.ndarray
    iou: np.ndarray

    def where(self, keep: np.ndarray) -> "Pairs":
        return Pairs(self.found[keep], self.object[keep], self.iou[keep])


def _concat(arrays: Sequence[np.ndarray], dtype: type, *shape: int) -> np.ndarray:
    return np.concatenate(
        [np.zeros((0, *shape), dtype), *(np.asarray(item, dtype) for item in arrays)]
    )


def _xywh(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def flatten(
    samples: Sequence[Sample], detections: Sequence[Detections]
) -> tuple[Objects, Found, Pairs]:
    """Join the images' arrays and pair what overlaps."""
    index = np.arange(len(samples))
    boxes = _xywh(_concat([r.boxes for r in samples], np.float64, 4))
    objects = Objects(
        np.repeat(index, [len(r.boxes) for r in samples]),
        _concat([r.labels for r in samples], np.int64),
        boxes[:, 2] * boxes[:, 3],
        _concat([r.difficult for r in samples], np.bool_),
        _concat([r.crowd for r in samples], np.bool_),
    )
    score = _concat([d.scores for d in detections], np.float64)
    image = np.repeat(index, [len(d.scores) for d in detections])
    order = np.lexsort((-score, image))  # stable: equal scores keep their order, as in pycocotools
    found_boxes = _xywh(_concat([d.boxes for d in detections], np.float64, 4))[order]
    label = _concat([d.labels for d in detections], np.int64)[order]
    found = Found(image, label, found_boxes[:, 2] * found_boxes[:, 3], score[order])
    return objects, found, _pair(found, found_boxes, objects, boxes)


def _pair(found: Found, found_boxes: np.ndarray, objects: Objects, boxes: np.ndarray) -> Pairs:
    """One call into pycocotools' C code per image that has both objects and detections."""
    images = np.intersect1d(found.image, objects.image)
    starts = zip(
        np.searchsorted(found.image, images).tolist(),
        np.searchsorted(found.image, images, side="right").tolist(),
        np.searchsorted(objects.image, images).tolist(),
        np.searchsorted(objects.image, images, side="right").tolist(),
        strict=True,
    )
    crowd = objects.crowd.astype(np.uint8)
    rows, columns, overlaps = [], [], []
    for d0, d1, g0, g1 in starts:
        iou = coco_mask.iou(found_boxes[d0:d1], boxes[g0:g1], crowd[g0:g1])
        row, column = np.nonzero(iou >= MIN_IOU)
        rows.append(row + d0)
        columns.append(column + g0)
        overlaps.append(iou[row, column])
    return Pairs(_concat(rows, np.int64), _concat(columns, np.int64), _concat(overlaps, np.float64))


def split_by_class(labels: np.ndarray, classes: int) -> list[np.ndarray]:
    """For every class the indices of its entries, ascending."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.searchsorted(labels[order], np.arange(1, classes))) if classes else []
