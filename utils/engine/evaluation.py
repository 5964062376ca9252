"""Evaluation of a detector on a split: one path for training, `eval.py` and exported models."""

from dataclasses import dataclass
from time import perf_counter

import torch

from nets.inference.detections import Detections
from nets.inference.detector import Detector
from utils.core import distributed
from utils.core.progress import progress_bar
from utils.data.dataset import DetectionDataset
from utils.metrics import Metrics, evaluate


@dataclass(frozen=True)
class Evaluation:
    """`metrics`, the `detections` of each image in the order of the dataset, and `seconds` of wall-clock time."""

    metrics: Metrics
    detections: list[Detections]
    seconds: float


def run_detector(
    detector: Detector, pictures: DetectionDataset, progress: bool = True
) -> list[Detections]:
    """Detections of every image with the limits of `config.eval`, in pixels of the original pictures.

    Several processes take turns with the images; each of them gets all detections.
    """
    limits = detector.config.eval
    found: list[Detections] = []
    mine = range(distributed.rank(), len(pictures), distributed.world_size())
    starts = range(0, len(mine), limits.batch_size)
    for start in progress_bar(starts, desc="evaluating", unit="batch", show=progress):
        indices = mine[start : start + limits.batch_size]
        canvases = torch.from_numpy(pictures.canvases(indices))
        titles = [str(pictures.samples[index].path) for index in indices]
        found += detector.detect(
            canvases, [pictures.letterboxes[index] for index in indices], limits, titles
        )
    return distributed.gather(found)


def evaluate_detector(
    detector: Detector, pictures: DetectionDataset, progress: bool = True
) -> Evaluation:
    """Detect and measure."""
    start = perf_counter()
    found = run_detector(detector, pictures, progress)
    metrics = distributed.broadcast_from_main(
        lambda: evaluate(pictures.samples, found, detector.names)
    )
    return Evaluation(metrics, found, perf_counter() - start)
