"""COCO AP of many resamples of the test images at once.

AP is no mean over images: a resample needs its own precision-recall curve. Detections are matched within their
image, so matching is done once; a resample only changes how often each image counts. Between two hits the curve's
envelope cannot rise, so only the hits are walked, with the number of errors ranked before each: one matrix product
for all resamples. The numbers are pycocotools' (a test compares them).

The bootstrap over test images: Efron: Bootstrap methods, Annals of Statistics 1979; percentile intervals.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nets.inference.detections import Detections
from utils.compare.stats import stats
from utils.data.sample import Sample
from utils.metrics import RECALLS, coco
from utils.metrics.pairs import flatten, split_by_class

RESAMPLES = 1000
BATCH = 100  # resamples computed at once, for memory


class ApTable:
    """Who hit what, of one evaluated detector: enough to compute AP for any weights of the pictures.

    Args:
        records, detections: as for `utils.metrics.evaluate`. classes: length of the class list.
    """

    def __init__(
        self, samples: Sequence[Sample], detections: Sequence[Detections], classes: int
    ) -> None:
        objects, found, pairs = flatten(samples, detections)
        self.images = len(samples)
        self._hit, self._ignored = coco.match_all(objects, found, pairs)
        order = np.argsort(-found.score, kind="mergesort")
        self._ranked = [order[index] for index in split_by_class(found.label[order], classes)]
        self._image = found.image
        counted = ~objects.crowd
        self._objects = np.zeros((classes, self.images))
        np.add.at(self._objects, (objects.label[counted], objects.image[counted]), 1)

    def ap(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """AP50 and AP (IoU 0.5:0.95), means over the classes that have objects, in points 0..100.

        Args:
            weights: how often each image counts, float32 `(B, images)`, whole numbers.

        Returns:
            float64 `(B,)` each, NaN for a resample without any object.
        """
        table = np.stack(
            [self._class_ap(k, weights) for k in range(len(self._ranked))]
        )  # (classes, B, 10)
        there = ~np.isnan(table[:, :, 0])
        count = there.sum(0)
        with np.errstate(invalid="ignore"):
            per_iou = np.where(there[..., None], table, 0).sum(0) / count[:, None]
        return 100 * per_iou[:, 0], 100 * per_iou.mean(1)

    def _class_ap(self, k: int, weights: np.ndarray) -> np.ndarray:
        """AP of a class at the ten IoUs, `(B, 10)`; NaN where it has no object."""
        positives = weights @ self._objects[k]
        index = self._ranked[k]
        rows = [
            self._average_precision(index, iou, weights, positives) for iou in range(len(self._hit))
        ]
        return np.where(positives[:, None] > 0, np.stack(rows, 1), np.nan)

    def _average_precision(
        self, index: np.ndarray, iou: int, weights: np.ndarray, positives: np.ndarray
    ) -> np.ndarray:
        """101-point AP `(B,)` from the hits of one class at one IoU."""
        index = index[~self._ignored[iou, index]]
        hit, image = self._hit[iou, index], self._image[index]
        places = np.flatnonzero(hit)
        if not len(places):
            return np.zeros(len(weights))
        rows, errors = _errors_before(image, hit, places)
        wrong = (weights[:, rows] @ errors).astype(np.float64)
        right = np.cumsum(weights[:, image[places]], axis=1, dtype=np.float64)
        precision = right / (right + wrong + np.spacing(1))
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        recall = right / np.maximum(positives, 1)[:, None]
        reached = np.searchsorted(RECALLS, recall, side="right")  # recall points up to here
        return (np.diff(reached, axis=1, prepend=0) * envelope).sum(1) / len(RECALLS)


def _errors_before(
    image: np.ndarray, hit: np.ndarray, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Images that have errors before the last hit, and how many before each hit: `(m,)`, float32 `(m, hits)`."""
    wrong = np.flatnonzero(~hit[: places[-1]])
    rows, row = np.unique(image[wrong], return_inverse=True)
    errors = np.zeros((len(rows), len(places)), np.float32)
    np.add.at(errors, (row, np.searchsorted(places, wrong)), 1)
    return rows, np.cumsum(errors, axis=1)


@dataclass(frozen=True)
class ImageSpread:
    """Bootstrap over test images of several statistics: 95% percentile intervals and standard errors, `(k,)`."""

    low: np.ndarray
    high: np.ndarray
    error: np.ndarray
    images: int
    resamples: int


def resample_images(
    statistic: Callable[[np.ndarray], np.ndarray], images: int, resamples: int = RESAMPLES
) -> ImageSpread:
    """Draw the images anew with replacement, the same ones for every setting and seed.

    Args:
        statistic: weights of the images, float32 `(B, images)`, to `(k, B)`.
    """

    def of_indices(drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        flat = np.atleast_2d(drawn)
        weights = np.zeros((len(flat), images), np.float32)
        np.add.at(weights, (np.arange(len(flat))[:, None], flat.astype(int)), 1)
        return statistic(weights)

    result = stats.bootstrap(
        (np.arange(images),),
        of_indices,
        n_resamples=resamples,
        batch=BATCH,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    interval = result.confidence_interval
    return ImageSpread(interval.low, interval.high, result.standard_error, images, resamples)
