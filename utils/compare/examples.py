"""The test images on which two settings differ most, drawn side by side with the ground truth."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np

from nets.inference.detections import Detections
from utils.compare.analysis import Comparison, Pair
from utils.compare.results import Outcome, read_detections
from utils.data.dataset import DetectionDataset
from utils.data.sample import Sample
from utils.metrics import coco
from utils.metrics.pairs import flatten
from utils.visualization.boxes import draw_detections, draw_ground_truth, image_grid

SHOWN = 2  # images for either direction
SIDE = 360  # a drawn image's longest side, pixels: large enough for the labels, small enough for one file


@dataclass(frozen=True)
class Example:
    """A drawn image: truth, reference, setting. `difference`: in F1, 0..1, mean over seeds; `seed`: the one drawn."""

    name: str
    difference: float
    seed: int
    drawn: np.ndarray


def f1_by_picture(samples: list[Sample], detections: list[Detections]) -> np.ndarray:
    """F1 at IoU 0.5 of every image, float64 `(images,)`; 1 where nothing is to be found and nothing was found."""
    objects, found, pairs = flatten(samples, detections)
    hit, ignored = coco.match_all(objects, found, pairs)
    count = len(samples)
    hits = np.bincount(found.image[hit[0] & ~ignored[0]], minlength=count)
    shown = np.bincount(found.image[~ignored[0]], minlength=count)
    there = np.bincount(objects.image[~objects.crowd], minlength=count)
    total = shown + there
    return np.where(total > 0, 2 * hits / np.maximum(total, 1), 1.0)


class Examples:
    """Finds and draws examples; a cell's detections are read once. Scores count from the cell's best F1 on."""

    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison
        self._shown = {key: self._read(outcome) for key, outcome in comparison.outcomes.items()}
        self._f1 = {
            key: f1_by_picture(comparison.splits[key[0]].samples, shown)
            for key, shown in self._shown.items()
        }

    def _read(self, outcome: Outcome) -> list[Detections]:
        split: DetectionDataset = self._comparison.splits[outcome.cell.variant]
        found = read_detections(outcome.cell, split.samples, split.class_names)
        return [one.above(outcome.threshold) for one in found]

    def of_pair(self, pair: Pair) -> list[Example]:
        """Up to two images where the setting is ahead most, then up to two where it is behind most."""
        by_seed = {
            seed: self._f1[pair.name, seed] - self._f1[pair.reference, seed]
            for seed in pair.differences
        }
        mean = np.mean(list(by_seed.values()), axis=0)
        order = np.argsort(-mean, kind="stable")
        chosen = [index for index in order[:SHOWN] if mean[index] > 0]
        chosen += [index for index in order[::-1][:SHOWN] if mean[index] < 0]
        return [self._draw(pair, int(index), mean, by_seed) for index in chosen]

    def _draw(
        self, pair: Pair, index: int, mean: np.ndarray, by_seed: Mapping[int, np.ndarray]
    ) -> Example:
        seed = min(by_seed, key=lambda one: abs(by_seed[one][index] - mean[index]))
        split = self._comparison.splits[pair.name]
        sample = split.samples[index]
        scale = SIDE / max(sample.height, sample.width)
        smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        image = cv2.resize(sample.read_image(), None, fx=scale, fy=scale, interpolation=smooth)
        truth = draw_ground_truth(image, scale * sample.boxes, sample.labels, split.class_names)
        found = [_scaled(self._shown[name, seed][index]) for name in (pair.reference, pair.name)]
        drawn = image_grid([truth, *(draw_detections(image, one) for one in found)], columns=3)
        return Example(sample.path.name, float(mean[index]), seed, drawn)


def _scaled(found: Detections) -> Detections:
    """Boxes in pixels of the drawn picture."""
    return replace(found, boxes=found.boxes * (SIDE / max(found.height, found.width)))
