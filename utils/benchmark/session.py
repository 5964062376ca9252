"""What the sections share: data, network, trainers and the baseline, each created on first use."""

import contextlib
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from nets.analysis.flops import measure_cost
from nets.inference.detector import Detector
from nets.io import checkpoints
from nets.loading import load_model
from utils.benchmark import baseline
from utils.benchmark.clock_process import TIMEOUT, ClockProcess
from utils.benchmark.gemm import Product, fastest_product, measure_products, network_precision
from utils.benchmark.results import Case, Measurement, measure
from utils.core.config import load_config
from utils.core.devices import pick_device, pick_precision
from utils.core.environment import cpu_count, cpu_name, library_versions
from utils.core.errors import UserError
from utils.core.images import write_image
from utils.core.overrides import parse_overrides
from utils.core.process import configure_process, configure_training
from utils.core.schema import Config
from utils.core.timing import Budget
from utils.data.augmentation import Batch
from utils.data.dataset import DetectionDataset
from utils.data.loading import load_dataset
from utils.data.sample import Sample
from utils.engine.experiment import new_detector
from utils.engine.settle import settle
from utils.engine.trainer import Trainer

EMBEDDED = ["input_size=416", "train.batch_size=16", "data.shapes_train=64", "data.shapes_val=64"]
DATASET = 10_000  # images, for which `auto` gives the usual batch size
QUICK = ["input_size=64", "train.batch_size=4", "data.shapes_train=16", "data.shapes_val=8"]
DRAWN_SIZE = (480, 640)  # (height, width) of the embedded data's files

T = TypeVar("T")


@dataclass(frozen=True)
class BenchmarkOptions:
    """What to measure, and how thoroughly.

    Attributes:
        config: the experiment.
        weights: a trained network; None: random weights, as when training starts.
        budget: budget of each section.
        quick: measure only enough to show that everything works.
        full: use the large sets, which take minutes.
    """

    config: Config
    weights: Path | None = None
    budget: Budget = Budget(30.0, min_rounds=5)
    quick: bool = False
    full: bool = False


def benchmark_config(
    name: str | None, weights: str | None, overrides: Sequence[str], quick: bool
) -> Config:
    """The experiment: from a YAML file, from the weights, or the embedded data at 416x416."""
    words = [*QUICK, *overrides] if quick else list(overrides)
    if weights is None:
        return load_config(name, words) if name else load_config("shapes.yaml", EMBEDDED + words)
    if weights.endswith(".onnx"):
        raise UserError(
            f"--weights {weights}: an ONNX file cannot train; give the file it was made from"
        )
    return load_model(weights, parse_overrides(words)).config


class BenchmarkSession(contextlib.AbstractContextManager["BenchmarkSession"]):
    """One run of the benchmark; leaving it ends its processes and removes its temporary files.

    Attributes:
        options: the options of the command.
        config: the experiment.
        device: the device that everything runs on.
        precision: precision of training and of PyTorch's inference.
        block: milliseconds over which a short call is timed.
        folder: folder for temporary files.
        processes: processes of the current section; they hold memory until closed.
    """

    def __init__(self, options: BenchmarkOptions) -> None:
        self.options = options
        self.config = settle(options.config, DATASET)
        self.device = pick_device(self.config.device)
        trainable = "auto" if self.config.precision == "int8" else self.config.precision
        self.precision = pick_precision(trainable, self.device)
        configure_process(self.config.threads)
        configure_training(self.device)
        self.block = self.scaled(200.0, quick=1.0)
        self._folder = tempfile.TemporaryDirectory(prefix="benchmark-", ignore_cleanup_errors=True)
        self.folder = Path(self._folder.name)
        self.processes = contextlib.ExitStack()

    def __exit__(self, *_: object) -> None:
        self.processes.close()
        self._folder.cleanup()

    def scaled(self, usual: T, quick: T) -> T:
        """Choose between two sizes of the work."""
        return quick if self.options.quick else usual

    @cached_property
    def products(self) -> list[Product]:
        """The matrix products and their rates."""
        return measure_products(self.device, self.options.quick)

    def measure(
        self, section: str, cases: Sequence[Case]
    ) -> tuple[list[Measurement], dict[str, np.ndarray]]:
        """Time cases as `results.measure` does, with the products they are compared with."""
        peaks = {}
        for precision in {case.precision for case in cases if case.gflop}:
            peak = fastest_product(self.products, network_precision(precision, self.device))
            if peak is not None:
                peaks[precision] = peak
        return measure(cases, self.options.budget, section, peaks)

    def start_process(self, *arguments: Any, timeout: float = TIMEOUT) -> ClockProcess:
        """A `ClockProcess` that ends with the section."""
        process = ClockProcess(*arguments, timeout=timeout)
        self.processes.callback(process.close)
        return process

    def baseline(self, training: bool) -> ClockProcess:
        """The baseline's process: clocks `detect` and, with `training`, `step`."""
        batch = None
        if training:
            tensors = (self.batch.images, self.batch.boxes, self.batch.labels)
            batch = [tensor.cpu().numpy() for tensor in tensors]
        canvas = self.canvas.numpy()
        return self.start_process(baseline.make_clocks, self.weights, canvas, self.block, batch)

    # data

    def _load_split(self, name: str, count: int) -> DetectionDataset:
        """Up to `count` images, evenly spread, as files; decoded into the cache."""
        weights = self.options.weights
        names = load_model(weights).names if weights else None
        whole = load_dataset(self.config.data, name, DRAWN_SIZE, names, progress=False)
        count = min(count, len(whole))
        indices = [index * len(whole) // count for index in range(count)]
        samples = [self._as_file(whole.samples[index]) for index in indices]
        data = self.config.data
        dataset = self.dataset(samples, data.cache, self.config.train.workers, whole.class_names)
        dataset.prepare(progress=False)
        return dataset

    def _as_file(self, sample: Sample) -> Sample:
        """A drawn image becomes a JPEG file."""
        if sample.draw is None:
            return sample
        path = self.folder / f"{sample.path.stem}.jpg"
        write_image(path, sample.draw())
        return replace(sample, path=path, draw=None)

    def dataset(
        self,
        samples: Sequence[Sample],
        cache: str,
        workers: int,
        class_names: Sequence[str] = (),
    ) -> DetectionDataset:
        """A dataset with its own disk cache."""
        return DetectionDataset(
            samples,
            self.config.input_size,
            cache=cache,
            cache_gb=self.config.data.cache_gb,
            workers=workers,
            cache_dir=self.folder / "cache",
            class_names=class_names,
        )

    @cached_property
    def train_set(self) -> DetectionDataset:
        """The images of an epoch; many on a GPU, so that the wait at its end hardly counts."""
        steps = self.scaled(50 if self.device.type == "cuda" else 4, quick=2)
        return self._load_split("train", steps * self.config.train.images_per_pass)

    @cached_property
    def val_set(self) -> DetectionDataset:
        """Two batches of validation images."""
        return self._load_split("val", 2 * self.config.eval.batch_size)

    @cached_property
    def image(self) -> np.ndarray:
        """An image read from a file: RGB uint8 `(h, w, 3)`."""
        return self.train_set.samples[0].read_image()

    @cached_property
    def canvas(self) -> torch.Tensor:
        """A canvas, the input of the network: uint8 `(1, H, W, 3)`."""
        return torch.from_numpy(self.train_set.canvases([0]))

    @cached_property
    def batch(self) -> Batch:
        """The first training batch, on the device."""
        return next(self.trainer("fp32").batches.epoch(0, closing=False))

    # network

    @cached_property
    def weights(self) -> Path:
        """A checkpoint of the network; backends store what they derive from it next to it."""
        if self.options.weights:
            detector = load_model(self.options.weights, backend="torch", precision="fp32")
        else:
            update = {"backend": "torch", "precision": self.precision}
            config = self.config.model_copy(update=update)
            with contextlib.redirect_stdout(sys.stderr):
                detector = new_detector(config, self.train_set)
        path = self.folder / "network.pt"
        content = checkpoints.describe(detector.network, self.config, detector.names)
        checkpoints.save(path, content)
        return path

    def detector(self, backend: str = "torch", precision: str | None = None) -> Detector:
        """A new detector; for int8 it is calibrated on training images."""
        detector = load_model(self.weights, backend=backend, precision=precision or self.precision)
        indices = range(min(32, len(self.train_set)))
        detector.model_spec.calibration = partial(self.train_set.canvases, indices)
        return detector

    def trainer(self, precision: str, optimizer: str = "sgd") -> Trainer:
        """A trainer at the first step of a training; SGD is also the baseline's optimizer."""
        changes = {"save_minutes": 1e9, "freeze_epochs": 0, "optimizer": optimizer}
        train = self.config.train.model_copy(update=changes)
        update = {"precision": precision, "backend": "torch", "train": train}
        config = self.config.model_copy(update=update)
        start = load_model(self.weights, backend="torch", precision=precision)
        detector = Detector(start.network, config, start.names, backend="torch")
        return Trainer(self.folder / precision, config, detector, self.train_set, self.train_set)

    @cached_property
    def gflops(self) -> float:
        """10^9 operations of the forward pass of one image."""
        return measure_cost(self.detector(precision="fp32").network, self.config.input_size).gflops

    def header(self) -> dict[str, dict[str, Any]]:
        """`machine` and `settings` of the JSON file."""
        machine = {
            "device": str(self.device),
            "cpu": cpu_name(),
            "cores": cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else None,
            "precision": self.precision,
            "versions": library_versions(),
        }
        settings = {
            "input_size": list(self.config.input_size),
            "batch_size": self.config.train.batch_size,
            "phi": self.config.phi,
            "classes": len(self.train_set.class_names),
            "gflops": round(self.gflops, 4),
            "weights": str(self.options.weights) if self.options.weights else None,
            "quick": self.options.quick,
            "full": self.options.full,
        }
        return {"machine": machine, "settings": settings}
