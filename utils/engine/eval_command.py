"""The logic of `eval.py`: weights and a split in, an evaluation and its report out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nets.inference.detector import Detector
from nets.loading import load_model
from utils.core.config import load_config
from utils.data.dataset import DetectionDataset
from utils.engine.calibration import open_detector
from utils.engine.datasets import open_dataset
from utils.engine.evaluation import Evaluation, evaluate_detector
from utils.engine.report import evaluation_json, write_json, write_pictures
from utils.engine.runs import describe, find_weights


def evaluate_weights(
    weights: str | None,
    split: str = "val",
    changes: Mapping[str, Any] | None = None,
    config: str | None = None,
    json_path: str | None = None,
    pictures_dir: str | None = None,
    reference: bool = False,
) -> Evaluation:
    """Evaluate; what int8 costs in AP is measured and printed beside it.

    Args:
        weights: file or run; none: the newest run's `best.pt`.
        split: `train`, `val`, or a split as the dataset names it.
        changes: dotted key to value, for the weights' own configuration.
        config: an experiment whose `data` replaces the one that the weights were trained on.
        reference: also evaluate in float32, as int8 always does, and print how much AP is lost.
        json_path: where to write the numbers. pictures_dir: where to draw curves, confusion matrix and predictions.

    Raises:
        UserError: weights, split or data missing, or classes in the data that the network does not know.
    """
    path = find_weights(weights)
    detector = open_detector(path, changes)
    if config:
        detector.config = detector.config.model_copy(
            update={"data": load_config(config, changes or {}).data}
        )
    print(f"{path}: {describe(detector)}")
    pictures = open_dataset(detector.config, split, detector.names)
    evaluation = evaluate_detector(detector, pictures)
    if json_path:
        write_json(Path(json_path), evaluation_json(evaluation, detector))
    if pictures_dir:
        write_pictures(Path(pictures_dir), evaluation, pictures)
    if reference or detector.precision == "int8":
        print(_loss_line(evaluation, detector, path, changes, pictures))
    return evaluation


def _loss_line(
    evaluation: Evaluation,
    detector: Detector,
    path: Path,
    changes: Mapping[str, Any] | None,
    pictures: DetectionDataset,
) -> str:
    """What the detector's precision costs, measured against float32 on the same pictures."""
    engine = "onnxruntime" if path.suffix == ".onnx" else "torch"
    exact = load_model(path, changes, backend=engine, precision="fp32")
    mine, theirs = (
        100 * one.metrics.map50_95 for one in (evaluation, evaluate_detector(exact, pictures))
    )
    how = f"{detector.backend.name} {detector.backend.precision}"
    return (
        f"AP {mine:.2f} with {how}, {theirs:.2f} with {engine} fp32: {theirs - mine:+.2f} AP lost"
    )
