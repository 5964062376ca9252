"""From a configuration to a finished run: data, anchors, network, training, report."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nets.analysis.flops import measure_cost
from nets.inference.detector import Detector
from nets.io import checkpoints
from nets.io.weights import load_weights, read_state
from nets.loading import load_model
from nets.yolo.yolov4_tiny import YOLOv4Tiny, build_model
from utils.core import distributed
from utils.core.config import make_config
from utils.core.errors import UserError
from utils.core.schema import Config
from utils.data.anchors import fit_anchors
from utils.data.dataset import DetectionDataset
from utils.data.duplicates import leaks
from utils.data.loading import Split, load_dataset
from utils.engine.dry_run import dry_run
from utils.engine.evaluation import Evaluation, evaluate_detector
from utils.engine.report import evaluation_json, write_batch, write_json, write_pictures
from utils.engine.runs import BEST, LAST, create_run, describe, find_run
from utils.engine.trainer import Trainer

METRICS = "metrics.json"  # a run that has it is finished
Loaded = tuple[tuple[Split, DetectionDataset], tuple[Split, DetectionDataset]]  # training and validation split
FEW_STEPS = 10  # an epoch of fewer steps says little; the user is told


@dataclass(frozen=True)
class Result:
    """A finished run: its folder and the evaluation of its best weights."""

    run: Path
    evaluation: Evaluation


def train(config: Config, run: Path | None = None, data: Loaded | None = None) -> Result:
    """Train a new run to the end.

    Args:
        run: its folder; none: a new one, `<output>/<name>`.
        data: what `load_data(config)` returns, where several runs share it.

    Raises:
        UserError: anything wrong with the configuration or the data, or a loss that is not finite.
    """
    refuse_early(config)
    train_set, val_set = data or load_data(config)
    detector = new_detector(config, *train_set)
    if len(train_set[1]) < config.train.batch_size:
        dry_run(detector.network, config.input_size, len(train_set[1]))
    run = distributed.broadcast_from_main(lambda: create_run(config, run))
    trainer = Trainer(run, config, detector, train_set[1], val_set[1])
    _announce(trainer)
    return _finish(trainer)


def refuse_early(config: Config) -> None:
    """Find the mistakes that need no data before minutes go into reading it."""
    detector = Detector(build_model(config, num_classes=1), config, ("object",), backend="torch")
    dry_run(detector.network, config.input_size, config.train.batch_size)
    if config.weights:
        read_state(Path(config.weights))


def resume(run: str | Path, data: Loaded | None = None) -> Result:
    """Go on with an interrupted run, from the step after its last saved one.

    Args:
        data: as for `train`.

    Raises:
        UserError: no such run, or it is finished.
    """
    folder = find_run(run)
    saved = checkpoints.load(folder / LAST)
    if "training" not in saved:
        raise UserError(
            f"--resume {run}: {folder / LAST} holds weights only; start a new run with weights={folder / LAST}"
        )
    config = make_config(saved["config"], str(folder / LAST))
    if saved["training"]["progress"]["done"] and (folder / METRICS).is_file():
        raise UserError(f"--resume {run}: trained to the end already ({saved['epoch']} epochs); start a new run")
    train_set, val_set = data or load_data(config, saved["names"])
    network = build_model(config, len(saved["names"]), saved["anchors"])
    detector = Detector(network, config, saved["names"], backend="torch")
    trainer = Trainer(folder, config, detector, train_set[1], val_set[1])
    trainer.restore(saved)
    print(f"resuming {folder} in epoch {trainer.progress.epoch + 1}, after step {trainer.progress.step}")
    return _finish(trainer)


def load_data(config: Config, classes: Sequence[str] | None = None) -> Loaded:
    """Training and validation split, each as `load_pictures` returns it; images in both are told to the user."""
    train_set, val_set = load_pictures(config, "train", classes), load_pictures(config, "val", classes)
    shared = leaks(train_set[0].samples, val_set[0].samples)
    if shared:
        first, second = shared[0]
        print(f"note: {len(shared)} validation images are also training images, e.g. {second} is {first}")
    return train_set, val_set


def load_pictures(config: Config, name: str, classes: Sequence[str] | None = None) -> tuple[Split, DetectionDataset]:
    """A split, checked and decoded into the cache that the configuration asks for; prints the report.

    `classes` is the class list of a trained network, which the data's own must not override.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    data = config.data.model_copy(update={"classes": list(classes)}) if classes else config.data
    split = load_dataset(data, name, config.input_size)
    pictures = DetectionDataset(
        split.samples, config.input_size, data.cache, data.cache_gb, config.train.workers, report=split.report
    )
    with distributed.main_process_first():
        pictures.prepare()
    title, *details = split.report.lines()
    print("\n".join([f"{name}: {title}", *details, *pictures.notices]))
    return split, pictures


def new_detector(config: Config, split: Split, pictures: DetectionDataset) -> Detector:
    """A network at its start: anchors fitted, heads at the data's rates, or pretrained weights."""
    anchors = None
    if config.model.anchors == "auto":
        fitted, fit = fit_anchors(split.samples, config.input_size)
        anchors = fitted.tolist()
        shown = " ".join(f"{width:.0f}x{height:.0f}" for width, height in anchors)
        print(f"anchors: {shown} (mean IoU {fit.mean_iou:.2f}, {100 * fit.recall:.0f}% within a factor 4)")
    torch.manual_seed(config.seed)
    network = build_model(config, len(split.names), anchors)
    _set_prior(network, pictures, config.input_size)
    if config.weights:
        print("\n".join(load_weights(network, config.weights).lines()))
    return Detector(network, config, split.names, backend="torch")


def _set_prior(network: YOLOv4Tiny, pictures: DetectionDataset, size: tuple[int, int]) -> None:
    labels = np.concatenate(pictures.labels)
    if len(labels):
        rates = np.bincount(labels, minlength=network.num_classes) / len(labels)
        network.set_prior(len(labels) / len(pictures), rates.tolist(), size)


def _announce(trainer: Trainer) -> None:
    """What is about to happen, and an image of the first batch."""
    detector, batches = trainer.detector, trainer.batches
    cost = measure_cost(detector.network, detector.input_size)
    print(f"{describe(detector)}; {cost.params:,} parameters, {cost.gflops:.2f} GFLOP")
    print(f"run: {trainer.run}; {len(batches.pictures)} images, {batches.steps} steps an epoch")
    if batches.steps < FEW_STEPS:
        print(f"note: only {batches.steps} steps an epoch; a smaller train.batch_size or more epochs may learn better")
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
    """Evaluate the best weights of a training that is done, and write the run's numbers and pictures."""
    distributed.barrier()  # for the first process to write them
    detector = load_model(run / BEST)
    evaluation = evaluate_detector(detector, val)
    write_json(run / METRICS, evaluation_json(evaluation, detector))
    write_pictures(run, evaluation, val)
    return Result(run, evaluation)
