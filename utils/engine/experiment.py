"""From a configuration to a finished run: samples, network, training, report."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nets.analysis.flops import measure_cost
from nets.inference.detector import Detector
from nets.io import checkpoints
from nets.io.weights import WeightsFile, load_weights, read_weights
from nets.loading import load_model
from nets.yolo.yolov4_tiny import YOLOv4Tiny, build_model
from utils.core import distributed
from utils.core.config import restore_config
from utils.core.errors import UserError
from utils.core.process import configure_process, configure_training
from utils.core.schema import Config
from utils.data.anchors import fit_anchors
from utils.data.dataset import DetectionDataset
from utils.engine.datasets import Datasets, open_datasets
from utils.engine.dry_run import dry_run
from utils.engine.evaluation import Evaluation, evaluate_detector
from utils.engine.report import evaluation_json, write_batch, write_json, write_pictures
from utils.engine.runs import BEST, LAST, create_run, describe, find_run
from utils.engine.trainer import Trainer

METRICS = "metrics.json"  # a run that has it is finished
FEW_STEPS = 10  # an epoch of fewer steps says little; the user is told


@dataclass(frozen=True)
class Result:
    """A finished run: its folder and the evaluation of its best weights."""

    run: Path
    evaluation: Evaluation


def train(config: Config, run: Path | None = None, datasets: Datasets | None = None) -> Result:
    """Train a new run to the end.

    Args:
        config: the experiment.
        run: its folder; None: a new one, `<output>/<name>`.
        datasets: what `open_datasets(config)` returns, where several runs share it.

    Raises:
        UserError: anything wrong with the configuration or the data, or a loss that is not finite.
    """
    configure_process(config.threads)
    pretrained = check_config(config)
    datasets = datasets or open_datasets(config)
    detector = new_detector(config, datasets.train, pretrained)
    if len(datasets.train) < config.train.batch_size:
        dry_run(detector.network, config.input_size, len(datasets.train))
    run = distributed.broadcast_from_main(lambda: create_run(config, run))
    configure_training(detector.device)
    trainer = Trainer(run, config, detector, datasets.train, datasets.val)
    _announce(trainer)
    return _finish(trainer)


def check_config(config: Config) -> WeightsFile | None:
    """Find the mistakes that need no data, before minutes go into reading it: a network of one class runs dry.

    Returns:
        The pretrained weights that the configuration names, if any.

    Raises:
        UserError: what is wrong.
    """
    detector = Detector(build_model(config, num_classes=1), config, ("object",), backend="torch")
    dry_run(detector.network, config.input_size, config.train.batch_size)
    return read_weights(config.weights) if config.weights else None


def resume(run: str | Path, datasets: Datasets | None = None) -> Result:
    """Go on with an interrupted run, from the step after its last saved one.

    Args:
        run: its folder, or its name below the folder of the runs.
        datasets: as for `train`.

    Raises:
        UserError: no such run, or it is finished.
    """
    folder = find_run(run)
    saved = checkpoints.load(folder / LAST)
    if "training" not in saved:
        raise UserError(
            f"--resume {run}: {folder / LAST} holds weights only; start a new run with weights={folder / LAST}"
        )
    config = restore_config(saved["config"], str(folder / LAST))
    if saved["training"]["progress"]["done"] and (folder / METRICS).is_file():
        raise UserError(
            f"--resume {run}: trained to the end already ({saved['epoch']} epochs); start a new run"
        )
    configure_process(config.threads)
    datasets = datasets or open_datasets(config, saved["names"])
    network = build_model(config, len(saved["names"]), saved["anchors"])
    detector = Detector(network, config, saved["names"], backend="torch")
    configure_training(detector.device)
    trainer = Trainer(folder, config, detector, datasets.train, datasets.val)
    trainer.restore(saved)
    print(
        f"resuming {folder} in epoch {trainer.progress.epoch + 1}, after step {trainer.progress.step}"
    )
    return _finish(trainer)


def new_detector(
    config: Config, dataset: DetectionDataset, pretrained: WeightsFile | None = None
) -> Detector:
    """A network at its start: anchors fitted, heads at the data's rates, or pretrained weights."""
    anchors = None
    if config.model.anchors == "auto":
        fitted, fit = fit_anchors(dataset.samples, config.input_size)
        anchors = fitted.tolist()
        shown = " ".join(f"{width:.0f}x{height:.0f}" for width, height in anchors)
        print(
            f"anchors: {shown} (mean IoU {fit.mean_iou:.2f}, {100 * fit.recall:.0f}% within a factor 4)"
        )
    torch.manual_seed(config.seed)
    network = build_model(config, len(dataset.class_names), anchors)
    _set_prior(network, dataset)
    if pretrained is not None:
        print("\n".join(load_weights(network, pretrained).lines()))
    return Detector(network, config, dataset.class_names, backend="torch")


def _set_prior(network: YOLOv4Tiny, dataset: DetectionDataset) -> None:
    labels = np.concatenate(dataset.labels)
    if len(labels):
        rates = np.bincount(labels, minlength=network.num_classes) / len(labels)
        network.set_prior(len(labels) / len(dataset), rates.tolist(), dataset.input_size)


def _announce(trainer: Trainer) -> None:
    """What is about to happen, and a grid of the first batch."""
    detector, batches = trainer.detector, trainer.batches
    cost = measure_cost(detector.network, detector.input_size)
    print(f"{describe(detector)}; {cost.params:,} parameters, {cost.gflops:.2f} GFLOP")
    print(f"run: {trainer.run}; {len(batches.pictures)} images, {batches.steps} steps per epoch")
    if batches.steps < FEW_STEPS:
        print(
            f"note: only {batches.steps} steps per epoch; a smaller train.batch_size or more epochs may learn better"
        )
    write_batch(trainer.run / "batch.png", next(batches.epoch(0, closing=False)), detector.names)


def _finish(trainer: Trainer) -> Result:
    """Train, then close the run."""
    try:
        trainer.fit()
    except KeyboardInterrupt:
        if (trainer.run / LAST).is_file():
            print(f"\nstopped; go on with: python train.py --resume {trainer.run}")
        raise
    return close_run(trainer.run, trainer.val)


def close_run(run: Path, val: DetectionDataset) -> Result:
    """Evaluate the best weights of a training that is done, and write the run's numbers and plots."""
    distributed.barrier()  # for the main process to write them
    detector = load_model(run / BEST)
    evaluation = evaluate_detector(detector, val)
    write_json(run / METRICS, evaluation_json(evaluation, detector))
    write_pictures(run, evaluation, val)
    return Result(run, evaluation)
