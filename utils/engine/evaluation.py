"""Evaluation of a detector on a split: one path for training, `eval.py` and exported models."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from nets.analysis.flops import measure_cost
from nets.inference.detections import Detections
from nets.inference.detector import Detector
from nets.inference.tiling import Tiling
from nets.io.formats import FORMATS
from nets.loading import load_model
from utils.core import distributed
from utils.core.config import load_config
from utils.core.errors import UserError
from utils.core.inputs import ReadError
from utils.core.outputs import claimed_outputs
from utils.core.progress import progress_bar
from utils.data.dataset import DetectionDataset
from utils.data.sample import Sample
from utils.engine.datasets import open_dataset
from utils.engine.detectors import check_class_names, describe, open_detector
from utils.engine.report import PLOTS, write_json, write_plots
from utils.engine.runs import OUTPUT, find_weights
from utils.metrics import Metrics, evaluate


@dataclass(frozen=True)
class Evaluation:
    """Results of a detector on a split.

    Attributes:
        metrics: AP and counts, overall and per class.
        detections: detections of each image, in the order of the dataset.
        seconds: wall-clock time.
    """

    metrics: Metrics
    detections: list[Detections]
    seconds: float

    def to_json(self, detector: Detector) -> dict[str, Any]:
        """Return the content of `metrics.json`; fractions are 0..1."""
        cost = measure_cost(detector.network, detector.input_size)
        tiling = detector.tiling
        return {
            **self.metrics.to_json(),
            **({} if tiling is None else {"tile": tiling.size, "overlap": tiling.overlap}),
            "seconds": round(self.seconds, 3),
            "params": cost.params,
            "gflops": round(cost.gflops, 4),
        }


def detect_dataset(
    detector: Detector, dataset: DetectionDataset, progress: bool = True
) -> list[Detections]:
    """Detect on every image with the limits of `config.eval`.

    With several processes the images are divided among them, and each gets all detections.

    Returns:
        Detections of each image, in pixels of the original image.
    """
    limits = detector.config.eval
    detections: list[Detections] = []
    own = range(distributed.rank(), len(dataset), distributed.world_size())
    starts = range(0, len(own), limits.batch_size)
    for start in progress_bar(starts, desc="evaluating", unit="batch", show=progress):
        indices = own[start : start + limits.batch_size]
        canvases = torch.from_numpy(dataset.canvases(indices))
        letterboxes = [dataset.letterboxes[index] for index in indices]
        titles = [str(dataset.samples[index].path) for index in indices]
        batch = detector.detect(canvases, letterboxes, limits, titles)
        for position, index in enumerate(indices):
            batch[position] = _in_tiles(detector, dataset.samples[index], batch[position])
        detections += batch
    return distributed.gather(detections)


def _in_tiles(detector: Detector, sample: Sample, whole: Detections) -> Detections:
    """The detections in the tiles of an image, if it is divided; else those in the whole."""
    if detector.tiling is None or not detector.tiling.divides((sample.height, sample.width)):
        return whole
    try:
        image = sample.read_image()
    except ReadError:
        raise
    except UserError:  # cannot be decoded: gray, and counted in the dataset's report
        return whole
    return replace(detector.detect_tiles(image, detector.config.eval), image=whole.image)


def evaluate_detector(
    detector: Detector, dataset: DetectionDataset, progress: bool = True
) -> Evaluation:
    """Run the detector on the split and compute the metrics."""
    start = perf_counter()
    detections = detect_dataset(detector, dataset, progress)
    metrics = distributed.broadcast_from_main(
        lambda: evaluate(dataset.samples, detections, detector.names)
    )
    return Evaluation(metrics, detections, perf_counter() - start)


def evaluate_weights(
    weights: str | None,
    split: str = "val",
    changes: Mapping[str, Any] | None = None,
    config: str | None = None,
    json_path: str | None = None,
    plots: str | None = None,
    reference: bool = False,
    tiling: Tiling | None = None,
) -> Evaluation:
    """Evaluate trained weights and write the requested files; implements `eval.py`.

    Args:
        weights: file or run; None: the newest run.
        split: `train`, `val`, or another split of the dataset.
        changes: dotted key to value, for the weights' own configuration.
        config: experiment whose `data` replaces that of the weights; runs are looked up in its
            `output`.
        json_path: where to write the numbers.
        plots: folder for curves, confusion matrix and predictions.
        reference: also evaluate in float32 and print how much AP is lost; always done for int8.
        tiling: how large images are divided; None: not at all.

    Raises:
        UserError: the weights, the split or the data are missing, or the data has classes that the
            network does not know.
    """
    pages = [Path(plots) / name for name in PLOTS] if plots else []
    with claimed_outputs(("--json", json_path), *(("--plots", page) for page in pages)):
        changes = dict(changes or {})
        output = str(changes.get("output", OUTPUT))
        if config:
            experiment = load_config(config, changes)
            output = experiment.output
            # before the detector is made: its backend and calibration capture the configuration
            changes |= {f"data.{key}": value for key, value in experiment.data.model_dump().items()}
        path = find_weights(weights, output)
        detector = open_detector(path, changes)
        detector.tiling = tiling
        check_class_names(detector, changes, by_hand=not config)
        print(f"{path}: {describe(detector)}")
        dataset = open_dataset(detector.config, split, detector.names)
        evaluation = evaluate_detector(detector, dataset)
        if json_path:
            write_json(Path(json_path), evaluation.to_json(detector))
        if plots:
            write_plots(Path(plots), evaluation.metrics, evaluation.detections, dataset)
        exported = detector.model_spec.exported
        is_quantized = exported is not None and exported.precision == "int8"
        if reference or (detector.precision == "int8" and not is_quantized):
            print(_precision_line(evaluation, detector, path, changes, dataset))
        return evaluation


def _precision_line(
    evaluation: Evaluation,
    detector: Detector,
    path: Path,
    changes: Mapping[str, Any],
    dataset: DetectionDataset,
) -> str:
    """What the detector's precision costs, measured against float32 on the same images."""
    exported = detector.model_spec.exported
    exact_backend = FORMATS[exported.path.suffix].backends[0] if exported else "torch"
    exact = load_model(path, changes, backend=exact_backend, precision="fp32")
    exact.tiling = detector.tiling
    ap = 100 * evaluation.metrics.map50_95
    exact_ap = 100 * evaluate_detector(exact, dataset).metrics.map50_95
    backend = detector.backend
    return (
        f"AP {ap:.2f} with {backend.name} {backend.precision}, "
        f"{exact_ap:.2f} with {exact_backend} fp32: {exact_ap - ap:+.2f} AP lost"
    )
