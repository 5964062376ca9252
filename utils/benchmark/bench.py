"""What the sections share: images, the network's file, trainers, the yardstick; each is made at first use."""

import contextlib
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from nets.analysis.flops import measure_cost
from nets.inference.detector import Detector
from nets.io import checkpoints
from nets.loading import load_model
from utils.benchmark import gemm
from utils.benchmark.naive import make_clocks
from utils.benchmark.remote import Remote
from utils.core.config import load_config, parse_overrides
from utils.core.devices import pick_device, pick_precision
from utils.core.errors import UserError
from utils.core.images import read_image
from utils.core.process import configure_process, configure_training
from utils.core.schema import Config
from utils.core.timing import Budget
from utils.data.augmentation import Batch
from utils.data.dataset import DetectionDataset
from utils.data.loading import load_dataset
from utils.data.sample import Sample
from utils.engine.experiment import new_detector
from utils.engine.trainer import Trainer
from utils.visualization.boxes import write_image

DEFAULT = "shapes.yaml"
WHOLE = ("input_size=416", "train.batch_size=16", "data.shapes_train=64", "data.shapes_val=64")
QUICK = ("input_size=64", "train.batch_size=4", "data.shapes_train=16", "data.shapes_val=8")
PHOTO, QUICK_PHOTO = (480, 640), (96, 128)  # (height, width) of the embedded data's files
STEPS, GPU_STEPS, QUICK_STEPS = (
    4,
    50,
    2,
)  # of an epoch; on a GPU its end, where the CPU waits, must count little
BLOCK = 200.0  # milliseconds that a block of short calls takes


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        config: the experiment. weights: a trained network's file; none: random weights, as at a training's start.
        effort: of each section. quick: as little as shows that all works. full: the large sets (minutes).
    """

    config: Config
    weights: Path | None = None
    effort: Budget = Budget(30.0, min_rounds=5)
    quick: bool = False
    full: bool = False


def make_config(
    name: str | None, weights: str | None, overrides: Sequence[str], quick: bool
) -> Config:
    """The experiment: of a YAML file, of the weights, or the embedded data at 416x416 in batches of 16."""
    scaled = [*QUICK, *overrides] if quick else list(overrides)
    if weights:
        if weights.endswith(".onnx"):
            raise UserError(
                f"--weights {weights}: an ONNX file cannot train; give the file it was made from"
            )
        return load_model(weights, parse_overrides(scaled)).config
    if name:
        return load_config(name, scaled)
    return load_config(DEFAULT, [*WHOLE, *scaled])


class Bench(contextlib.AbstractContextManager["Bench"]):
    """A run of the benchmark; on leaving the `with` block its temporary files and processes end."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.config = settings, settings.config
        self.device = pick_device(self.config.device)
        trainable = "auto" if self.config.precision == "int8" else self.config.precision
        self.precision = pick_precision(trainable, self.device)
        configure_process(self.config.threads)
        configure_training(self.device)
        self.block = 1.0 if settings.quick else BLOCK
        self._folder = tempfile.TemporaryDirectory(prefix="benchmark-", ignore_cleanup_errors=True)
        self.folder = Path(self._folder.name)
        self._remotes: list[Remote] = []

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end_processes()
        self._folder.cleanup()

    def end_processes(self) -> None:
        """End the processes that sections have started: what they hold is memory."""
        while self._remotes:
            self._remotes.pop().close()

    @cached_property
    def products(self) -> list[gemm.Product]:
        """The matrix products to compare with, and how fast they are."""
        return gemm.peaks(self.device, self.settings.quick)

    def peak(self, precision: str) -> gemm.Product | None:
        """The product that a network in this precision is compared with; none where there is none."""
        return gemm.fastest(self.products, gemm.network_peak(precision, self.device))

    def reached(
        self, precision: str, gflop: float, times: np.ndarray, product: np.ndarray | None
    ) -> tuple[float, float | None]:
        """GFLOP/s of what takes `gflop` in `times` ms, and its share of the product's, timed in the same rounds."""
        rates, peak = 1000 * gflop / times, self.peak(precision)
        share = (
            None
            if product is None or peak is None
            else float(np.median(rates * product / (1000 * peak.gflop)))
        )
        return float(np.median(rates)), share

    def split(self, name: str, count: int) -> DetectionDataset:
        """Up to `count` images of a split, evenly spread. Drawn ones become JPEG files: a dataset has files."""
        size = QUICK_PHOTO if self.settings.quick else PHOTO
        names = load_model(self.settings.weights).names if self.settings.weights else None
        whole = load_dataset(self.config.data, name, size, names, progress=False)
        count = min(count, len(whole))
        samples = [whole.samples[index * len(whole) // count] for index in range(count)]
        return self.pictures(
            [self._as_file(sample) for sample in samples], class_names=whole.class_names
        )

    def _as_file(self, sample: Sample) -> Sample:
        if sample.draw is None:
            return sample
        path = self.folder / f"{sample.path.stem}.jpg"
        write_image(path, sample.draw())
        return replace(sample, path=path, draw=None)

    @cached_property
    def train_split(self) -> DetectionDataset:
        """An epoch's pictures."""
        steps = (
            QUICK_STEPS
            if self.settings.quick
            else GPU_STEPS
            if self.device.type == "cuda"
            else STEPS
        )
        return self.split("train", steps * self.config.train.batch_size)

    @cached_property
    def train_set(self) -> DetectionDataset:
        """The same, decoded into the cache that the configuration asks for."""
        self.train_split.prepare(progress=False)
        return self.train_split

    @cached_property
    def val_set(self) -> DetectionDataset:
        """Two evaluation batches of validation images, in the cache."""
        pictures = self.split("val", 2 * self.config.eval.batch_size)
        pictures.prepare(progress=False)
        return pictures

    def pictures(
        self,
        samples: Sequence[Sample],
        cache: str | None = None,
        workers: int | None = None,
        class_names: Sequence[str] = (),
    ) -> DetectionDataset:
        """A dataset with a disk cache of its own; `cache` and `workers` other than the configuration's."""
        data, folder = self.config.data, self.folder / "cache"
        threads = self.config.train.workers if workers is None else workers
        size = self.config.input_size
        return DetectionDataset(
            samples,
            size,
            cache=cache or data.cache,
            cache_gb=data.cache_gb,
            workers=threads,
            cache_dir=folder,
            class_names=class_names,
        )

    @cached_property
    def photo(self) -> np.ndarray:
        """An image as it comes from a file: RGB uint8 `(h, w, 3)`."""
        return read_image(self.train_split.samples[0].path)

    @cached_property
    def weights(self) -> Path:
        """A checkpoint of the network to measure; what backends derive from it lies beside it."""
        given = self.settings.weights
        detector = (
            load_model(given, backend="torch", precision="fp32") if given else self._untrained()
        )
        path = self.folder / "network.pt"
        anchors, state = detector.network.coder.anchors.tolist(), detector.network.state_dict()
        saved = {
            "config": self.config.model_dump(mode="json"),
            "names": list(detector.names),
            "epoch": 0,
        }
        checkpoints.save(path, {**saved, "anchors": anchors, "model": state})
        return path

    def _untrained(self) -> Detector:
        config = self.config.model_copy(update={"backend": "torch", "precision": self.precision})
        with contextlib.redirect_stdout(sys.stderr):
            return new_detector(config, self.train_set)

    def detector(self, backend: str = "torch", precision: str | None = None) -> Detector:
        """A new detector of that network; int8 is calibrated on the training pictures."""
        detector = load_model(self.weights, backend=backend, precision=precision or self.precision)
        detector.model_spec.calibration = partial(
            self.train_set.canvases, range(min(32, len(self.train_set)))
        )
        return detector

    @cached_property
    def gflops(self) -> float:
        """10^9 operations of one image's forward pass."""
        return measure_cost(self.detector(precision="fp32").network, self.config.input_size).gflops

    def trainer(self, precision: str) -> Trainer:
        """A trainer at the first step of a training."""
        never_saved = self.config.train.model_copy(update={"save_minutes": 1e9, "freeze_epochs": 0})
        config = self.config.model_copy(
            update={"precision": precision, "backend": "torch", "train": never_saved}
        )
        start = load_model(self.weights, backend="torch", precision=precision)
        detector = Detector(start.network, config, start.names, backend="torch")
        return Trainer(self.folder / precision, config, detector, self.train_set, self.train_set)

    @cached_property
    def batch(self) -> Batch:
        """A ready training batch on the device, the first of the first epoch."""
        return next(self.trainer("fp32").batches.epoch(0, closing=False))

    @cached_property
    def canvas(self) -> torch.Tensor:
        """An image as the network takes it: uint8 `(1, H, W, 3)`."""
        return torch.from_numpy(self.train_set.canvases([0]))

    def naive(self, training: bool) -> Remote:
        """The yardstick's process: clocks `detect` and, with `training`, `step`."""
        batch, canvas = self.folder / "batch.pt", self.folder / "canvas.pt"
        torch.save(
            {key: value.cpu() for key, value in vars(self.batch).items()} if training else {}, batch
        )
        torch.save(self.canvas, canvas)
        return self.remote(
            make_clocks, self.weights, batch if training else None, canvas, self.block
        )

    def remote(self, *arguments: Any, timeout: float = 300.0) -> Remote:
        """A `Remote` that ends with the benchmark."""
        self._remotes.append(Remote(*arguments, timeout=timeout))
        return self._remotes[-1]
