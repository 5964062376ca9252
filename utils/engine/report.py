"""Files that show how a detector learns and performs: numbers as JSON, plots, example images."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nets.inference.detections import Detections
from nets.inference.drawing import draw_detections, draw_ground_truth, image_grid
from utils.core import distributed
from utils.core.files import write_file
from utils.core.images import write_image
from utils.data.augmentation import Batch
from utils.data.dataset import DetectionDataset
from utils.metrics import Metrics
from utils.visualization.plots import plot_confusion_matrix, plot_pr_curves

PLOTS = ("pr.png", "confusion.png", "predictions.png")
EXAMPLES = 8  # validation images drawn
BATCH_IMAGES = 16  # images of a training batch drawn


@distributed.main_process_only
def write_json(path: Path, content: Any) -> None:
    """Write JSON, whole or not at all; missing folders are made.

    Raises:
        WriteError: the file cannot be written.
    """
    write_file(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


@distributed.main_process_only
def write_plots(
    folder: Path, metrics: Metrics, detections: Sequence[Detections], dataset: DetectionDataset
) -> None:
    """Write precision-recall curves, the confusion matrix and example predictions.

    Args:
        folder: folder for the files named in `PLOTS`.
        metrics: metrics of the detections.
        detections: detections of each image, in the order of the dataset.
        dataset: the images.
    """
    curves, confusion, predictions = (folder / name for name in PLOTS)
    plot_pr_curves(metrics, curves)
    plot_confusion_matrix(metrics, confusion)
    write_image(predictions, draw_predictions(detections, dataset))


def draw_predictions(
    detections: Sequence[Detections], dataset: DetectionDataset, score: float = 0.25
) -> np.ndarray:
    """Draw images spread over the dataset: ground truth (dashed) beside detections.

    Args:
        detections: detections of each image, in the order of the dataset.
        dataset: the images.
        score: minimum score of a drawn detection, 0..1.

    Returns:
        RGB uint8 `(h, w, 3)`, a grid.
    """
    step = max(1, len(dataset) // EXAMPLES)
    cells = []
    for index in range(0, len(dataset), step)[:EXAMPLES]:
        sample, predicted = dataset.samples[index], detections[index]
        image = sample.read_image()
        cells.append(draw_ground_truth(image, sample.boxes, sample.labels, predicted.names))
        cells.append(draw_detections(image, predicted.above(score)))
    return image_grid(cells, columns=4)


@distributed.main_process_only
def write_batch(path: Path, batch: Batch, names: Sequence[str]) -> None:
    """Draw a training batch as the network sees it: augmented images with their objects."""
    images = (batch.images.detach().permute(0, 2, 3, 1) * 255).round().byte().cpu().numpy()
    boxes = batch.boxes.cpu().numpy()
    labels = batch.labels.cpu().numpy()
    cells = []
    for index in range(min(len(images), BATCH_IMAGES)):
        valid = labels[index] >= 0
        cells.append(
            draw_ground_truth(images[index], boxes[index][valid], labels[index][valid], names)
        )
    write_image(path, image_grid(cells))
