"""The training loop."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from nets.loss import YoloLoss
from nets.predictor import Detector
from nets.yolo import YOLOv4Tiny
from utils import checkpoint
from utils.data.augment import Batch
from utils.data.dataset import PictureSet
from utils.devices import autocast
from utils.engine.batches import BatchMaker, generator_for
from utils.engine.evaluator import evaluate_detector
from utils.engine.log import RunLog
from utils.engine.optimise import WeightAverage, learning_rate, make_optimizer
from utils.engine.runs import BEST, LAST
from utils.errors import UserError
from utils.metrics import Metrics
from utils.schema import Config

PARTS = ("loss", "box", "objectness", "cls")


@dataclass
class Progress:
    """Where a training stands: all that is not a weight.

    Attributes:
        epoch: epochs finished. step: steps finished in the epoch under way. seconds: training time so far.
        sums: loss parts summed over those steps. history: a row for each finished epoch.
        best: best map50_95 so far. stale: evaluations since then. done: trained to the end, or stopped early.
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    best: float = -1.0
    stale: int = 0
    done: bool = False


class Trainer:
    """Trains a network.

    Args:
        run: the run's folder. config: the experiment. detector: network, class list and device.
        train, val: the pictures.
    """

    def __init__(self, run: Path, config: Config, detector: Detector, train: PictureSet, val: PictureSet) -> None:
        self.run, self.config, self.detector, self.val = run, config, detector, val
        self.device = detector.device
        self.network: YOLOv4Tiny = detector.network
        self.batches = BatchMaker(train, config.augment, config.train.batch_size, config.seed, self.device)
        self.optimizer = make_optimizer(self.network, config.train)
        self.average = WeightAverage(self.network, config.train.ema)
        self.criterion = YoloLoss(self.network.coder, config.loss)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=detector.precision == "fp16")
        self.forward: Callable[[Tensor], list[Tensor]] = (
            torch.compile(self.network) if config.train.compile else self.network
        )
        self.log = RunLog(run, config.train.tensorboard)
        self.progress = Progress()
        self.saved_at = time.monotonic()

    def fit(self) -> Progress:
        """Train to the end, or until `patience` runs out."""
        while not self.progress.done:
            self._epoch()
            metrics = self._evaluate() if self._evaluation_due() else None
            self._close_epoch(metrics)
        return self.progress

    def averaged(self) -> Detector:
        """The detector with the averaged weights."""
        return Detector(self.average.network, self.config, self.detector.names, backend="torch")

    # one epoch

    def _epoch(self) -> None:
        progress, config = self.progress, self.config.train
        closing = progress.epoch >= config.epochs - self.config.augment.close_mosaic
        self._set_mode()
        started = time.perf_counter()
        batches = self.batches.epoch(progress.epoch, closing, progress.step)
        title = f"epoch {progress.epoch + 1}/{config.epochs}"
        with tqdm(total=self.batches.steps, initial=progress.step, desc=title, unit="step", disable=None) as bar:
            for batch in batches:
                values, rate = self._step(batch)
                self._account(values)
                bar.set_postfix_str(self._postfix(rate), refresh=False)
                bar.update()
                if time.monotonic() - self.saved_at > 60 * config.save_minutes and progress.step < self.batches.steps:
                    self._save_last()
        progress.seconds += time.perf_counter() - started

    def _set_mode(self) -> None:
        """Training mode; the backbone stands still, its batch-norm statistics too, in the frozen first epochs."""
        frozen = self.progress.epoch < self.config.train.freeze_epochs
        self.network.train()
        self.network.backbone.train(not frozen)
        self.network.backbone.requires_grad_(not frozen)

    def _step(self, batch: Batch) -> tuple[dict[str, float], float]:
        """One step: the loss parts `PARTS` and the learning rate."""
        progress, config = self.progress, self.config.train
        rate = learning_rate(config, progress.epoch * self.batches.steps + progress.step, self.batches.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # dropout inside attention blocks draws from the global generator: seeded here, a resumed run draws the same
        torch.manual_seed(generator_for(self.config.seed, progress.epoch, progress.step, 1).initial_seed())
        with autocast(self.detector.precision, self.device):
            maps = self.forward(batch.images)
        parts = self.criterion(maps, batch.boxes, batch.labels)
        values = dict(zip(PARTS, torch.stack([parts[name].detach() for name in PARTS]).tolist(), strict=True))
        self._refuse_non_finite(values)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(parts["loss"]).backward()
        self.scaler.unscale_(self.optimizer)
        if config.clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), config.clip, foreach=True)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.average.update(self.network)
        return values, rate

    def _refuse_non_finite(self, values: dict[str, float]) -> None:
        if all(map(math.isfinite, values.values())):
            return
        shown = ", ".join(f"{name} {value:g}" for name, value in values.items())
        saved = f"; {self.run / LAST} holds an earlier state" if (self.run / LAST).is_file() else ""
        raise UserError(
            f"the loss is not finite in epoch {self.progress.epoch + 1}, step {self.progress.step + 1} ({shown}): "
            f"lower train.lr, or set precision=fp32{saved}"
        )

    def _account(self, values: dict[str, float]) -> None:
        self.progress.step += 1
        for name in PARTS:
            self.progress.sums[name] = self.progress.sums.get(name, 0.0) + values[name]

    def _means(self) -> dict[str, float]:
        return {name: self.progress.sums[name] / self.progress.step for name in PARTS}

    def _postfix(self, rate: float) -> str:
        losses = " ".join(f"{name} {value:.3f}" for name, value in self._means().items())
        return f"{losses} lr {rate:.4f}"

    # between epochs

    def _evaluation_due(self) -> bool:
        epochs = self.config.train.epochs
        every = self.config.train.eval_every or max(1, epochs // 10)
        finished = self.progress.epoch + 1
        return finished % every == 0 or finished == epochs

    def _evaluate(self) -> Metrics:
        return evaluate_detector(self.averaged(), self.val).metrics

    def _close_epoch(self, metrics: Metrics | None) -> None:
        progress, config = self.progress, self.config.train
        row = {"epoch": progress.epoch + 1, "lr": self.optimizer.param_groups[0]["lr"], **self._means()}
        if metrics is not None:
            row |= {"map50": metrics.map50, "map50_95": metrics.map50_95, "voc_ap50": metrics.voc_ap50}
        progress.history.append({**row, "seconds": round(progress.seconds, 1)})
        progress.epoch, progress.step, progress.sums = progress.epoch + 1, 0, {}
        improved = self._judge(metrics)
        out_of_patience = bool(config.patience) and progress.stale >= config.patience
        progress.done = progress.epoch >= config.epochs or out_of_patience
        if improved:
            checkpoint.save(self.run / BEST, self.weights())
        self._save_last()
        self.log.write(progress.history)
        tqdm.write(self._epoch_line(metrics, improved))

    def _judge(self, metrics: Metrics | None) -> bool:
        """Whether these weights are the best so far, by map50_95."""
        if metrics is None:
            return False
        score = metrics.map50_95 if metrics.map50_95 == metrics.map50_95 else 0.0
        improved = score > self.progress.best
        self.progress.best = max(score, self.progress.best)
        self.progress.stale = 0 if improved else self.progress.stale + 1
        return improved

    def _epoch_line(self, metrics: Metrics | None, improved: bool) -> str:
        row = self.progress.history[-1]
        text = f"epoch {int(row['epoch'])}/{self.config.train.epochs}  loss {row['loss']:.3f}"
        if metrics is not None:
            text += f"  AP50 {100 * metrics.map50:.1f}  AP {100 * metrics.map50_95:.1f}{'  best' if improved else ''}"
        return text

    # state

    def weights(self) -> dict[str, Any]:
        """The averaged weights with all that is needed to use them."""
        return {
            "config": self.config.model_dump(mode="json"),
            "names": list(self.detector.names),
            "anchors": self.network.coder.anchors.tolist(),
            "model": self.average.network.state_dict(),
            "epoch": self.progress.epoch,
        }

    def _save_last(self) -> None:
        training = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average_updates": self.average.updates,
            "progress": vars(self.progress),
        }
        checkpoint.save(self.run / LAST, {**self.weights(), "training": training})
        self.saved_at = time.monotonic()

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from the content of a `last.pt`; the next step is the one that would have come."""
        training = saved["training"]
        self.network.load_state_dict(training["network"])
        self.average.network.load_state_dict(saved["model"])
        self.average.updates = training["average_updates"]
        self.optimizer.load_state_dict(training["optimizer"])
        self.scaler.load_state_dict(training["scaler"])
        self.progress = Progress(**training["progress"])
