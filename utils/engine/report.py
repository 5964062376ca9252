"""Files that show how a detector learns and performs: numbers as JSON, plots, example images."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nets.inference.detections import Detections
from nets.inference.drawing import draw_detections, draw_ground_truth, image_grid
from utils.core import distributed
from utils.core.images import Letterbox, write_image
from utils.core.outputs import write_file
from utils.data.augmentation import Batch
from utils.data.dataset import DetectionDataset
from utils.data.sample import Sample
from utils.metrics import Metrics
from utils.visualization.plots import plot_confusion_matrix, plot_pr_curves

PLOTS = ("pr.png", "confusion.png", "predictions.png")
EXAMPLES = 8  # validation images drawn
CELL_SIDE = 480  # pixels, of the longer side of a drawn image
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

    Raises:
        ReadError: an image file can no longer be read.
    """
    step = max(1, len(dataset) // EXAMPLES)
    shown = range(0, len(dataset), step)[:EXAMPLES]
    size = _cell_size([dataset.samples[index] for index in shown])
    cells = []
    for index in shown:
        sample, predicted = dataset.samples[index], detections[index].above(score)
        # resized before the labels are drawn, which are then of one size
        letterbox = Letterbox((sample.height, sample.width), size)
        image = letterbox.apply(sample.read_image_or_gray())
        boxes = letterbox.boxes_to_input(sample.boxes)
        cells.append(draw_ground_truth(image, boxes, sample.labels, predicted.names))
        found = replace(predicted, boxes=letterbox.boxes_to_input(predicted.boxes))
        cells.append(draw_detections(image, found))
    return image_grid(cells, columns=4)


def _cell_size(samples: Sequence[Sample]) -> tuple[int, int]:
    """(height, width) of the cells, in the shape of the median image."""
    height = float(np.median([sample.height for sample in samples]))
    width = float(np.median([sample.width for sample in samples]))
    scale = CELL_SIDE / max(height, width)
    return max(1, round(scale * height)), max(1, round(scale * width))


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
