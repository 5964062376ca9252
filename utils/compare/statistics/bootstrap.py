"""The bootstrap over test images: COCO AP of many resamples at once.

AP is not a mean over images, so every resample needs its own precision-recall curve. Detections are
matched within their image, so they are matched once; a resample only changes how often each image
counts. Between two hits the envelope of the curve cannot rise, so only the hits are visited, with
the number of errors ranked before each of them: one matrix product for all resamples. A test checks
that the results equal those of pycocotools.

Percentile intervals: Efron, Bootstrap methods, Annals of Statistics 1979.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nets.inference.detections import Detections
from utils.compare.statistics.paired import Interval, stats
from utils.data.sample import Sample
from utils.metrics import coco
from utils.metrics.detection_metrics import RECALLS
from utils.metrics.pairs import flatten, split_by_class

RESAMPLES = 1000
BATCH = 100  # resamples computed at once, to limit memory


@dataclass(frozen=True)
class Groups:
    """Images that belong together, such as those of a video; the bootstrap draws whole groups.

    Attributes:
        key: what the annotation calls the groups.
        index: index of each image's group, int `(images,)`.
    """

    key: str
    index: np.ndarray

    @property
    def count(self) -> int:
        """Number of groups."""
        return int(self.index.max()) + 1


class WeightedAP:
    """The matches of an evaluated detector, from which AP follows for any weights of the images.

    Args:
        samples: the test images.
        detections: detections of each image.
        num_classes: number of classes.
    """

    def __init__(
        self, samples: Sequence[Sample], detections: Sequence[Detections], num_classes: int
    ) -> None:
        objects, candidates, pairs = flatten(samples, detections)
        self._hit, self._ignored = coco.match_all(objects, candidates, pairs)
        order = np.argsort(-candidates.score, kind="mergesort")
        by_class = split_by_class(candidates.label[order], num_classes)
        self._ranked = [order[index] for index in by_class]
        self._image = candidates.image
        counted = ~objects.crowd
        self._objects = np.zeros((num_classes, len(samples)))
        np.add.at(self._objects, (objects.label[counted], objects.image[counted]), 1)

    def compute(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute AP (IoU 0.5:0.95) and AP50, means over the classes that have objects.

        Args:
            weights: how often each image counts, float32 `(B, images)`, whole numbers.

        Returns:
            AP and AP50, float64 `(B,)`, points 0..100; NaN for a resample without any object.
        """
        per_class = [self._class_ap(index, weights) for index in range(len(self._ranked))]
        table = np.stack(per_class)  # (classes, B, 10)
        present = ~np.isnan(table[:, :, 0])
        count = present.sum(0)
        with np.errstate(invalid="ignore"):
            per_iou = np.where(present[..., None], table, 0).sum(0) / count[:, None]
        return 100 * per_iou.mean(1), 100 * per_iou[:, 0]

    def _class_ap(self, class_index: int, weights: np.ndarray) -> np.ndarray:
        """AP of a class at the ten IoUs, `(B, 10)`; NaN where it has no objects."""
        positives = weights @ self._objects[class_index]
        ranked = self._ranked[class_index]
        per_iou = [
            self._average_precision(ranked[~ignored[ranked]], hit, weights, positives)
            for hit, ignored in zip(self._hit, self._ignored, strict=True)
        ]
        return np.where(positives[:, None] > 0, np.stack(per_iou, 1), np.nan)

    def _average_precision(
        self, ranked: np.ndarray, hit: np.ndarray, weights: np.ndarray, positives: np.ndarray
    ) -> np.ndarray:
        """101-point AP `(B,)` of one class at one IoU."""
        image = self._image[ranked]
        hits = np.flatnonzero(hit[ranked])
        if not len(hits):
            return np.zeros(len(weights))
        wrong = np.flatnonzero(~hit[ranked[: hits[-1]]])
        error_images, errors = _errors_before(image[wrong], np.searchsorted(hits, wrong), len(hits))
        false_positives = (weights[:, error_images] @ errors).astype(np.float64)
        right = np.cumsum(weights[:, image[hits]], axis=1, dtype=np.float64)
        precision = right / (right + false_positives + np.spacing(1))
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        recall = right / np.maximum(positives, 1)[:, None]
        reached = np.searchsorted(RECALLS, recall, side="right")  # recall points up to each hit
        return (np.diff(reached, axis=1, prepend=0) * envelope).sum(1) / len(RECALLS)


def _errors_before(
    image: np.ndarray, next_hit: np.ndarray, num_hits: int
) -> tuple[np.ndarray, np.ndarray]:
    """Count the errors ranked before each hit.

    Args:
        image: index of each error's image, `(n,)`.
        next_hit: index of the first hit after each error, `(n,)`.
        num_hits: number of hits `k`.

    Returns:
        The images with errors, `(m,)`, and how many each has before each hit, float32 `(m, k)`.
    """
    images, row = np.unique(image, return_inverse=True)
    errors = np.zeros((len(images), num_hits), np.float32)
    np.add.at(errors, (row, next_hit), 1)
    return images, np.cumsum(errors, axis=1)


@dataclass(frozen=True)
class BootstrapSummary:
    """Bootstrap of several statistics.

    Attributes:
        low: lower end of the 95% percentile interval, `(k,)`.
        high: its upper end, `(k,)`.
        error: standard error, `(k,)`.
    """

    low: np.ndarray
    high: np.ndarray
    error: np.ndarray

    def interval(self, index: int) -> Interval:
        """The interval of one statistic."""
        return Interval(float(self.low[index]), float(self.high[index]))


def bootstrap_images(
    statistic: Callable[[np.ndarray], np.ndarray],
    count: int,
    resamples: int = RESAMPLES,
    groups: Groups | None = None,
) -> BootstrapSummary:
    """Draw the images with replacement, the same ones for all settings and seeds.

    Args:
        statistic: maps weights of the images, float32 `(B, count)`, to `(k, B)`.
        count: number of images.
        resamples: number of draws.
        groups: draw whole groups of images, as many as there are; None: single images.
    """
    units = count if groups is None else groups.count

    def statistic_of_draws(draws: np.ndarray, axis: int = -1) -> np.ndarray:
        draws = np.atleast_2d(draws).astype(int)
        weights = np.zeros((len(draws), units), np.float32)
        np.add.at(weights, (np.arange(len(draws))[:, None], draws), 1)
        return statistic(weights if groups is None else weights[:, groups.index])

    result = stats.bootstrap(
        (np.arange(units),),
        statistic_of_draws,
        n_resamples=resamples,
        batch=BATCH,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    interval = result.confidence_interval
    return BootstrapSummary(interval.low, interval.high, result.standard_error)
