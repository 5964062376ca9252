"""From a configuration to a finished run: samples, network, training, report."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nets.analysis.flops import measure_cost
from nets.attention import parse_phi
from nets.inference.detector import Detector
from nets.io import checkpoints
from nets.io.weights import WeightsFile, choose_model_config, load_weights, read_weights
from nets.loading import load_model
from nets.yolo.yolov4_tiny import YOLOv4Tiny, build_model
from utils.core import distributed
from utils.core.config import restore_config, update_config
from utils.core.errors import UserError
from utils.core.file_groups import remove_unfinished
from utils.core.folder_lock import locked
from utils.core.inputs import ReadError
from utils.core.outputs import check_folder, write_file
from utils.core.overrides import as_words, check_resume_changes
from utils.core.process import configure_process, configure_training
from utils.core.schema import Config, DataConfig, TrainConfig
from utils.data.anchors import fit_anchors
from utils.data.dataset import DetectionDataset
from utils.data.layout import resolve
from utils.engine.datasets import Datasets, open_datasets
from utils.engine.detectors import describe
from utils.engine.dry_run import dry_run
from utils.engine.evaluation import Evaluation, evaluate_detector
from utils.engine.loggers import check_loggers
from utils.engine.progress_text import note_if_rising
from utils.engine.report import write_batch, write_json, write_plots
from utils.engine.runs import BEST, LAST, OUTPUT, create_run, find_run
from utils.engine.saved_state import check_training
from utils.engine.settle import SMALL_BATCH_SIZE, settle
from utils.engine.trainer import Trainer

METRICS = "metrics.json"  # a run that has it is finished
FEW_STEPS = 10  # with fewer steps per epoch the user is warned: little is learned


@dataclass(frozen=True)
class Result:
    """A finished run.

    Attributes:
        run: its folder.
        evaluation: evaluation of its best weights on the validation split.
        test: evaluation of the same weights on the test split, if there is one.
    """

    run: Path
    evaluation: Evaluation
    test: Evaluation | None = None

    @property
    def final(self) -> Evaluation:
        """The evaluation that the run is judged by: no epoch was chosen on a test split."""
        return self.evaluation if self.test is None else self.test

    def report(self) -> str:
        """Return the metrics, and what to do next, for the terminal."""
        tables = self.evaluation.metrics.table()
        if self.test is not None:
            tables = f"validation split\n{tables}\n\ntest split\n{self.test.metrics.table()}"
        return (
            f"{tables}\n\n"
            f"{self.run}: best.pt, metrics.json, results.csv and plots. Continue with:\n"
            f"  python eval.py --weights {self.run}\n"
            f"  python predict.py --weights {self.run} --source IMAGE"
            "  (without --source: its validation images)"
        )


def train(config: Config, run: Path | None = None, datasets: Datasets | None = None) -> Result:
    """Train a new run to the end.

    Args:
        config: the experiment.
        run: the folder of the run; None: a new one, `<output>/<name>`.
        datasets: result of `open_datasets(config)`, if several runs share it.

    Raises:
        UserError: the configuration or the data is invalid, or the loss is not finite.
    """
    configure_process(config.threads)
    pretrained = check_config(config)
    if run is None:
        check_folder(Path(config.output, config.name), f"output={config.output}")
    datasets = datasets or open_datasets(config)
    settled = settle(config, len(datasets.train))
    detector = new_detector(settled, datasets.train, pretrained)
    if len(datasets.train) < settled.train.images_per_pass:
        dry_run(detector.network, config.input_size, len(datasets.train))
    folder = distributed.broadcast_from_main(lambda: create_run(config, run))
    configure_training(detector.device)
    with _owned(folder):
        _write_division(folder, config.data, datasets)
        trainer = Trainer(folder, detector.config, detector, datasets.train, datasets.val)
        _announce(trainer)
        return _finish(trainer, datasets)


@distributed.main_process_only
def _write_division(run: Path, data: DataConfig, datasets: Datasets) -> None:
    """Write which images are trained on, if the dataset does not say so itself."""
    settled, _ = resolve(data)
    if settled.train != settled.val:
        return
    for name, dataset in (("train.txt", datasets.train), ("val.txt", datasets.val)):
        lines = [f"{sample.path.absolute()}\n" for sample in dataset.samples]
        write_file(run / name, "".join(lines))


def check_config(config: Config) -> WeightsFile | None:
    """Check everything that can be checked without data, before minutes are spent reading it.

    The dry run uses a network with one class: the real one needs the classes and boxes of the data.

    Returns:
        The pretrained weights that the configuration names, if any.

    Raises:
        UserError: the configuration is invalid.
    """
    check_loggers(config)
    detector = Detector(build_model(config, num_classes=1), config, ("object",), backend="torch")
    size = config.train.batch_size
    dry_run(detector.network, config.input_size, SMALL_BATCH_SIZE if size == "auto" else size)
    with distributed.main_process_first():  # which may download them
        return read_weights(config.weights, config.cfg) if config.weights else None


def resume(
    run: str | Path, changes: Mapping[str, Any] | None = None, datasets: Datasets | None = None
) -> Result:
    """Continue an interrupted run from the step after the last saved one.

    Args:
        run: its folder, or its name in the output folder.
        changes: overrides; only those in `RESUME_KEYS` are allowed.
        datasets: result of `open_datasets`, if several runs share it.

    Raises:
        UserError: there is no such run, it is finished, its data has changed, or an override would
            make it another training.
    """
    changes = dict(changes or {})
    check_resume_changes(changes)
    folder = find_run(run, str(changes.pop("output", OUTPUT)))
    with _owned(folder):
        return _resume_owned(folder, f"--resume {run}", changes, datasets)


@contextmanager
def _owned(run: Path) -> Iterator[None]:
    """Keep other trainings out of the folder of a run."""
    with ExitStack() as stack:
        distributed.broadcast_from_main(lambda: _take(run, stack))
        yield


def _take(run: Path, stack: ExitStack) -> None:
    advice = "wait until it has finished, or stop it"
    stack.enter_context(locked(run, "train.py is working", advice))
    remove_unfinished(run)


def _resume_owned(
    folder: Path, asked_by: str, changes: Mapping[str, Any], datasets: Datasets | None
) -> Result:
    saved = _read_checkpoint(folder / LAST, asked_by)
    config = update_config(restore_config(saved["config"], str(folder / LAST)), changes)
    _check_progress(saved, config, folder, asked_by)
    configure_process(config.threads)
    check_loggers(config)
    datasets = datasets or open_datasets(config, saved["names"])
    network = checkpoints.build_network(saved, config, folder / LAST)
    detector = Detector(network, config, saved["names"], backend="torch")
    configure_training(detector.device)
    trainer = Trainer(folder, config, detector, datasets.train, datasets.val)
    trainer.restore(saved)
    if changes:
        distributed.broadcast_from_main(lambda: create_run(config, folder))
    progress = trainer.progress
    print(f"resuming {folder} in epoch {progress.epoch + 1}, after step {progress.step}")
    return _finish(trainer, datasets)


def _read_checkpoint(last: Path, asked_by: str) -> dict[str, Any]:
    """Return the content of a `last.pt`."""
    saved = checkpoints.load(last)
    if "training" not in saved:
        raise UserError(
            f"{asked_by}: {last} holds weights only; start a new run with weights={last}"
        )
    check_training(saved, last)
    return saved


def _check_progress(saved: Mapping[str, Any], config: Config, folder: Path, asked_by: str) -> None:
    """Refuse a training that is finished, unless `train.epochs` now prolongs it."""
    if config.train.epochs == "auto":
        raise UserError(f"{asked_by}: train.epochs=auto: expected a number of epochs")
    progress, epochs = saved["training"]["progress"], config.train.epochs
    if epochs < progress["epoch"]:
        raise UserError(
            f"{asked_by}: train.epochs={epochs}, but {progress['epoch']} epochs are finished"
        )
    if progress["done"] and epochs > saved["config"]["train"]["epochs"]:
        progress["done"] = False
        progress["stale"] = 0  # else `train.patience` would end it again at once
    if progress["done"] and (folder / METRICS).is_file():
        raise UserError(
            f"{asked_by}: training is already finished ({saved['epoch']} epochs); prolong it with "
            "train.epochs=N, or start a new run"
        )


def new_detector(
    config: Config, dataset: DetectionDataset, pretrained: WeightsFile | None = None
) -> Detector:
    """A new network: fitted anchors, head biases set to the class rates, or pretrained weights.

    If pretrained heads fit, the configuration takes over their box coder; new attention blocks do
    not change the outputs of pretrained weights.
    """
    if pretrained is not None:
        config = _with_settings_of(pretrained, config, len(dataset.class_names))
    anchors = None
    if config.model.anchors == "auto":
        fitted, fit = fit_anchors(dataset.samples, config.input_size, config.model.num_anchors)
        anchors = fitted.tolist()
        shown = " ".join(f"{width:.0f}x{height:.0f}" for width, height in anchors)
        print(
            f"anchors: {shown} (mean IoU {fit.mean_iou:.2f}, "
            f"{100 * fit.recall:.0f}% within a factor 4)"
        )
    torch.manual_seed(config.seed)
    network = build_model(config, len(dataset.class_names), anchors)
    _set_prior(network, dataset)
    if pretrained is not None:
        print("\n".join(load_weights(network, pretrained).lines()))
    return Detector(network, config, dataset.class_names, backend="torch")


def _with_settings_of(pretrained: WeightsFile, config: Config, num_classes: int) -> Config:
    """The configuration with the box coder and the attention start that suit pretrained weights."""
    has_blocks = bool(parse_phi(config.phi, config.attention.at))
    if config.attention.init is None and has_blocks:
        start = pretrained.attention_init or "identity"
        config = update_config(config, {"attention.init": start})
    model = choose_model_config(config.model, num_classes, pretrained)
    if model == config.model:
        return config
    requested = config.model.model_dump(mode="json")
    changes = {
        f"model.{key}": value
        for key, value in model.model_dump(mode="json").items()
        if value != requested[key]
    }
    print(f"{pretrained.path}: its heads fit, so their box coder is used: {as_words(changes)}")
    return update_config(config, changes)


def _set_prior(network: YOLOv4Tiny, dataset: DetectionDataset) -> None:
    counts = dataset.count_objects()
    objects = int(counts.sum())
    if objects:
        rates = (counts / objects).tolist()
        network.set_prior(objects / len(dataset), rates, dataset.input_size)


def _announce(trainer: Trainer) -> None:
    """Print a summary of the run and draw its first batch."""
    detector, batches = trainer.detector, trainer.batches
    cost = measure_cost(detector.network, detector.input_size)
    print(f"{describe(detector)}; {cost.params:,} parameters, {cost.gflops:.2f} GFLOP")
    print(
        f"run: {trainer.run}; {len(batches.dataset)} images, {_steps_text(trainer.config.train)}, "
        f"{batches.steps} steps per epoch"
    )
    if batches.steps < FEW_STEPS:
        print(
            f"note: only {batches.steps} steps per epoch; "
            "a smaller train.batch_size or more epochs may learn better"
        )
    write_batch(trainer.run / "batch.png", next(batches.epoch(0, closing=False)), detector.names)


def _steps_text(config: TrainConfig) -> str:
    """`45 epochs, batch size 8 x 2`."""
    parts = f" x {config.accumulate}" if config.accumulate > 1 else ""
    return f"{config.epoch_count} epochs, batch size {config.images_per_pass}{parts}"


def _finish(trainer: Trainer, datasets: Datasets) -> Result:
    """Train to the end and close the run; if that is cut short, save the state reached."""
    try:
        with trainer.log:
            trainer.fit()
            note = note_if_rising(trainer.progress.history)
            if note is not None and distributed.is_main_process():
                print(note)
            return close_run(trainer.run, datasets)
    except (KeyboardInterrupt, ReadError):
        if trainer.save_stopped():
            print(f"\nstopped; continue with: python train.py --resume {trainer.run}")
        raise


def close_run(run: Path, datasets: Datasets) -> Result:
    """Evaluate the best weights of a finished training and write its numbers and plots."""
    distributed.barrier()  # until the main process has written them
    detector = load_model(run / BEST)
    evaluation = evaluate_detector(detector, datasets.val)
    content, test = evaluation.to_json(detector), None
    if datasets.test is not None:
        test = evaluate_detector(detector, datasets.test)
        content["test"] = test.to_json(detector)
    write_plots(run, evaluation.metrics, evaluation.detections, datasets.val)
    write_json(run / METRICS, content)  # last: it marks the run as finished
    return Result(run, evaluation, test)
