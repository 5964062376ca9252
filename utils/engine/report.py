"""The numbers and images of an evaluation: metrics.json, curves, confusion matrix, predictions."""

import json
from pathlib import Path
from typing import Any

from nets.analysis.flops import measure_cost
from nets.inference.detector import Detector
from utils.core import distributed
from utils.core.errors import UserError
from utils.data.augmentation import Batch
from utils.data.dataset import DetectionDataset
from utils.engine.evaluation import Evaluation
from utils.visualization.boxes import draw_detections, draw_ground_truth, image_grid, write_image
from utils.visualization.plots import plot_confusion_matrix, plot_pr_curves

SHOWN = 8  # validation images drawn


def evaluation_json(evaluation: Evaluation, detector: Detector) -> dict[str, Any]:
    """What `eval.py --json` and `metrics.json` hold; fractions 0..1, `seconds` for the whole evaluation."""
    cost = measure_cost(detector.network, detector.input_size)
    return {
        **evaluation.metrics.to_json(),
        "seconds": round(evaluation.seconds, 3),
        "params": cost.params,
        "gflops": round(cost.gflops, 4),
    }


@distributed.main_process_only
def write_json(path: Path, content: Any) -> None:
    """Write JSON, one line an entry.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot write: {error.strerror}") from None


@distributed.main_process_only
def write_pictures(run: Path, evaluation: Evaluation, pictures: DetectionDataset) -> None:
    """Precision-recall curves, confusion matrix, and validation images with truth beside prediction."""
    plot_pr_curves(evaluation.metrics, run / "pr.png")
    plot_confusion_matrix(evaluation.metrics, run / "confusion.png")
    write_image(run / "predictions.png", predictions_picture(evaluation, pictures))


def predictions_picture(evaluation: Evaluation, pictures: DetectionDataset, score: float = 0.25):
    """Images spread over the dataset, two columns each: ground truth (dashed) and detections of `score` or more."""
    step = max(1, len(pictures) // SHOWN)
    shown = []
    for index in range(0, len(pictures), step)[:SHOWN]:
        sample, found = pictures.samples[index], evaluation.detections[index]
        image = sample.read_image()
        shown += [
            draw_ground_truth(image, sample.boxes, sample.labels, found.names),
            draw_detections(image, found.above(score)),
        ]
    return image_grid(shown, columns=4)


@distributed.main_process_only
def write_batch(path: Path, batch: Batch, names: tuple[str, ...]) -> None:
    """A training batch as the network sees it: augmented images with their objects."""
    images = (batch.images.detach().permute(0, 2, 3, 1) * 255).round().byte().cpu().numpy()
    shown = []
    for image, boxes, labels in zip(
        images[:16], batch.boxes.cpu().numpy(), batch.labels.cpu().numpy(), strict=False
    ):
        there = labels >= 0
        shown.append(draw_ground_truth(image, boxes[there], labels[there], names))
    write_image(path, image_grid(shown))
