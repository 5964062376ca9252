"""The test images on which two settings differ most, drawn side by side with the ground truth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from nets.inference.detections import Detections
from nets.inference.drawing import draw_detections, draw_ground_truth, image_grid
from utils.compare.analysis.comparison import Comparison, PairSummary
from utils.compare.trials.results import TrialResult, read_detections
from utils.data.sample import Sample
from utils.metrics import coco
from utils.metrics.pairs import flatten

EXAMPLES = 2  # where the setting is ahead, and as many where it is behind
SIDE = 360  # longest side of a drawn image, pixels: the labels are readable, the report stays small


def is_drawable(sample: Sample) -> bool:
    """Whether there is an image: foreign detections may come without."""
    return sample.draw is not None or sample.file_size > 0


@dataclass(frozen=True)
class Example:
    """An image with the ground truth, the reference's detections and the setting's.

    Attributes:
        name: name of the image file.
        difference: F1 of the setting minus F1 of the reference, mean over seeds, -1..1.
        seed: the seed whose detections are drawn.
        drawn: RGB uint8 `(h, w, 3)`.
    """

    name: str
    difference: float
    seed: int
    drawn: np.ndarray


def image_f1(samples: Sequence[Sample], detections: Sequence[Detections]) -> np.ndarray:
    """F1 at IoU 0.5 of every image, float64 `(images,)`; 1 without objects and detections."""
    objects, candidates, pairs = flatten(samples, detections)
    hit, ignored = coco.match_all(objects, candidates, pairs)
    counted = ~ignored[0]
    num_images = len(samples)
    num_hits = np.bincount(candidates.image[hit[0] & counted], minlength=num_images)
    num_detections = np.bincount(candidates.image[counted], minlength=num_images)
    num_objects = np.bincount(objects.image[~objects.crowd], minlength=num_images)
    total = num_detections + num_objects
    return np.where(total > 0, 2 * num_hits / np.maximum(total, 1), 1.0)


class ExampleFinder:
    """Finds and draws examples among every trial's detections above its score threshold."""

    def __init__(self, comparison: Comparison) -> None:
        self._splits = comparison.splits
        self._detections: dict[tuple[str, int], list[Detections]] = {}
        self._f1: dict[tuple[str, int], np.ndarray] = {}
        for key, result in comparison.results.items():
            self._detections[key] = self._read(result)
            self._f1[key] = image_f1(self._splits[key[0]].samples, self._detections[key])

    def _read(self, result: TrialResult) -> list[Detections]:
        split = self._splits[result.trial.setting]
        detections = read_detections(result.trial, split.samples, split.class_names)
        return [each.above(result.threshold) for each in detections]

    def find(self, pair: PairSummary) -> list[Example]:
        """Draw up to two images where the setting is most ahead, then two where it is behind."""
        by_seed = {}
        for seed in pair.differences:
            if (pair.name, seed) not in self._f1 or (pair.reference, seed) not in self._f1:
                continue  # a trial that diverged has no detections
            by_seed[seed] = self._f1[pair.name, seed] - self._f1[pair.reference, seed]
        if not by_seed:
            return []
        mean = np.mean(list(by_seed.values()), axis=0)
        samples = self._splits[pair.name].samples
        mean = np.where([is_drawable(sample) for sample in samples], mean, 0.0)
        order = np.argsort(-mean, kind="stable")
        chosen = [index for index in order[:EXAMPLES] if mean[index] > 0]
        chosen += [index for index in order[::-1][:EXAMPLES] if mean[index] < 0]
        return [self._draw(pair, int(index), mean[index], by_seed) for index in chosen]

    def _draw(
        self, pair: PairSummary, index: int, difference: float, by_seed: Mapping[int, np.ndarray]
    ) -> Example:
        """The image, drawn for the seed whose difference is nearest to the mean."""
        seed = min(by_seed, key=lambda seed: abs(by_seed[seed][index] - difference))
        split = self._splits[pair.name]
        sample = split.samples[index]
        scale = SIDE / max(sample.height, sample.width)
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        image = sample.read_image_or_gray()
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=interpolation)
        panels = [draw_ground_truth(image, scale * sample.boxes, sample.labels, split.class_names)]
        for name in (pair.reference, pair.name):
            detections = self._detections[name, seed][index]
            scaled = replace(detections, boxes=detections.boxes * scale)
            panels.append(draw_detections(image, scaled))
        return Example(sample.path.name, float(difference), seed, image_grid(panels, columns=3))
