"""A dataset as flat arrays, and every (detection, object) pair that overlaps enough to matter."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask

from nets.inference.detections import Detections
from utils.data.sample import Sample

MIN_IOU = 0.5  # the lowest threshold of COCO AP, VOC AP and the confusion matrix


@dataclass(frozen=True)
class FlatObjects:
    """The objects of all images, in image order: arrays `(n,)`.

    Attributes:
        image: index of the image.
        label: index of the class.
        area: area of the box, in square pixels.
        difficult: Pascal VOC's flag.
        crowd: COCO's flag.
    """

    image: np.ndarray
    label: np.ndarray
    area: np.ndarray
    difficult: np.ndarray
    crowd: np.ndarray


@dataclass(frozen=True)
class FlatDetections:
    """The detections of all images, by image, and within an image best score first: arrays `(n,)`.

    Attributes:
        image: index of the image.
        label: index of the class.
        area: area of the box, in square pixels.
        score: 0..1.
    """

    image: np.ndarray
    label: np.ndarray
    area: np.ndarray
    score: np.ndarray


@dataclass(frozen=True)
class CandidatePairs:
    """Pairs in one image, of any classes, with IoU >= 0.5: arrays `(n,)`.

    Attributes:
        detection: indices into `FlatDetections`.
        object: indices into `FlatObjects`.
        iou: for a crowd region, as in COCO, intersection over the area of the detection.
    """

    detection: np.ndarray
    object: np.ndarray
    iou: np.ndarray

    def select(self, index: np.ndarray) -> "CandidatePairs":
        """The pairs at `index`: indices or a mask."""
        return CandidatePairs(self.detection[index], self.object[index], self.iou[index])


def flatten(
    samples: Sequence[Sample], detections: Sequence[Detections]
) -> tuple[FlatObjects, FlatDetections, CandidatePairs]:
    """Join the images' arrays, and pair the detections and objects that overlap."""
    images = np.arange(len(samples))
    object_boxes = _xywh(_concat([sample.boxes for sample in samples], np.float64, 4))
    objects = FlatObjects(
        image=np.repeat(images, [len(sample.boxes) for sample in samples]),
        label=_concat([sample.labels for sample in samples], np.int64),
        area=object_boxes[:, 2] * object_boxes[:, 3],
        difficult=_concat([sample.difficult for sample in samples], np.bool_),
        crowd=_concat([sample.crowd for sample in samples], np.bool_),
    )
    score = _concat([item.scores for item in detections], np.float64)
    image = np.repeat(images, [len(item.scores) for item in detections])
    order = np.lexsort((-score, image))  # stable: equal scores keep their order, as in pycocotools
    boxes = _xywh(_concat([item.boxes for item in detections], np.float64, 4))[order]
    flat = FlatDetections(
        image=image,
        label=_concat([item.labels for item in detections], np.int64)[order],
        area=boxes[:, 2] * boxes[:, 3],
        score=score[order],
    )
    return objects, flat, _pair(flat.image, boxes, objects, object_boxes)


def _pair(
    image: np.ndarray, boxes: np.ndarray, objects: FlatObjects, object_boxes: np.ndarray
) -> CandidatePairs:
    """One call into pycocotools' C code per image that has both objects and detections."""
    images = np.intersect1d(image, objects.image)
    first_detection = np.searchsorted(image, images).tolist()
    end_detection = np.searchsorted(image, images, side="right").tolist()
    first_object = np.searchsorted(objects.image, images).tolist()
    end_object = np.searchsorted(objects.image, images, side="right").tolist()
    crowd = objects.crowd.astype(np.uint8)
    rows, columns, ious = [], [], []
    for d0, d1, o0, o1 in zip(
        first_detection, end_detection, first_object, end_object, strict=True
    ):
        iou = coco_mask.iou(boxes[d0:d1], object_boxes[o0:o1], crowd[o0:o1])
        row, column = np.nonzero(iou >= MIN_IOU)
        rows.append(row + d0)
        columns.append(column + o0)
        ious.append(iou[row, column])
    return CandidatePairs(
        _concat(rows, np.int64), _concat(columns, np.int64), _concat(ious, np.float64)
    )


def _concat(arrays: Sequence[np.ndarray], dtype: type, *shape: int) -> np.ndarray:
    """Concatenate arrays `(n, *shape)`; there may be none."""
    converted: list[np.ndarray] = [np.asarray(array, dtype) for array in arrays]
    return np.concatenate([np.zeros((0, *shape), dtype), *converted])


def _xywh(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def split_by_class(labels: np.ndarray, classes: int) -> list[np.ndarray]:
    """For each class the indices of its entries, ascending."""
    if not classes:
        return []
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.searchsorted(labels[order], np.arange(1, classes)))
