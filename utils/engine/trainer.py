"""The training loop."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from nets.inference.detector import Detector
from nets.io import checkpoints
from nets.losses.yolo_loss import YoloLoss
from nets.yolo.yolov4_tiny import YOLOv4Tiny
from utils.core import distributed
from utils.core.devices import autocast
from utils.core.errors import UserError
from utils.core.schema import Config
from utils.data.augmentation import Batch
from utils.data.dataset import DetectionDataset
from utils.engine.batches import BatchMaker, generator_for, resident_pool
from utils.engine.evaluation import evaluate_detector
from utils.engine.log import RunLog
from utils.engine.meter import LossMeter
from utils.engine.optim import ModelEMA, learning_rate, make_optimizer
from utils.engine.runs import BEST, LAST
from utils.metrics import Metrics

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
    """Trains a network, alone or as one of several processes of the same job.

    Args:
        run: the run's folder; of several processes, the first one writes. config: the experiment. detector: network,
            class list and device. train, val: the pictures.

    Raises:
        UserError: the processes cannot share a batch evenly.
    """

    def __init__(
        self,
        run: Path,
        config: Config,
        detector: Detector,
        train: DetectionDataset,
        val: DetectionDataset,
    ) -> None:
        self.run, self.config, self.detector, self.val = run, config, detector, val
        self.device = detector.device
        self.network: YOLOv4Tiny = detector.network
        pool = resident_pool(train, self.device, config.data.gpu_cache_gb)
        self.batches = BatchMaker(
            train, config.augment, config.train.batch_size, config.seed, self.device, pool
        )
        self.optimizer = make_optimizer(self.network, config.train)
        self.average = ModelEMA(self.network, config.train.ema_decay)
        if distributed.world_size() > 1:
            distributed.synchronize_batch_norms(self.network)
        self.criterion = YoloLoss(
            self.network.coder, config.loss, distributed.all_reduce_mean, distributed.world_size()
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=detector.precision == "fp16")
        self.forward: Callable[[Tensor], list[Tensor]] = self.network
        self._frozen: bool | None = None  # whether the backbone stands still in `forward`
        self.meter = LossMeter(PARTS, self.device)
        self.log = RunLog(run, config.train.tensorboard)
        self.progress = Progress()
        self.saved_at = time.monotonic()

    def fit(self) -> Progress:
        """Train to the end, or until `patience` runs out."""
        while not self.progress.done:
            self.run_epoch()
            metrics = self._evaluate() if self._evaluation_due() else None
            self._close_epoch(metrics)
        return self.progress

    def averaged(self) -> Detector:
        """The detector with the averaged weights."""
        return Detector(self.average.network, self.config, self.detector.names, backend="torch")

    # one epoch

    def run_epoch(self) -> None:
        """All steps of the epoch under way; on a GPU, the CPU does not wait for it before the end."""
        progress, config = self.progress, self.config.train
        closing = progress.epoch >= config.epochs - self.config.augment.close_mosaic
        self.start_epoch()
        started = time.perf_counter()
        batches = self.batches.epoch(progress.epoch, closing, progress.step)
        title = f"epoch {progress.epoch + 1}/{config.epochs}"
        with tqdm(
            total=self.batches.steps, initial=progress.step, desc=title, unit="step", disable=None
        ) as bar:
            for batch in batches:
                self.step(batch)
                self._refuse_non_finite(*self.meter.latest())
                bar.set_postfix_str(self._postfix(), refresh=False)
                bar.update()
                if (
                    time.monotonic() - self.saved_at > 60 * config.save_minutes
                    and progress.step < self.batches.steps
                ):
                    self._save_last()
        self._read_losses()
        progress.seconds += time.perf_counter() - started

    def start_epoch(self) -> None:
        """Training mode; the backbone stands still, its batch-norm statistics too, in the frozen first epochs."""
        frozen = self.progress.epoch < self.config.train.freeze_epochs
        self.network.train()
        self.network.backbone.train(not frozen)
        self.network.backbone.requires_grad_(not frozen)
        if frozen != self._frozen:
            self._frozen, self.forward = frozen, self._wrapped()
        self.meter.start(self.progress.sums, self.progress.step)

    def _wrapped(self) -> Callable[[Tensor], list[Tensor]]:
        """The network; compiled if that is asked for, its gradients averaged if there are several processes."""
        forward: nn.Module = self.network
        if (
            distributed.world_size() > 1
        ):  # it knows only the parameters that are trained when it is made
            devices = [self.device] if self.device.type == "cuda" else None
            forward = DistributedDataParallel(forward, devices)
        return torch.compile(forward) if self.config.train.compile else forward

    def step(self, batch: Batch) -> Tensor:
        """One step of the epoch under way (`start_epoch` begins one). Returns the loss `PARTS`, on the device."""
        progress, config = self.progress, self.config.train
        rate = learning_rate(
            config, progress.epoch * self.batches.steps + progress.step, self.batches.steps
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # dropout inside attention blocks draws from the global generator: seeded here, a resumed run draws the same
        key = (1, distributed.rank()) if distributed.rank() else (1,)
        torch.manual_seed(
            generator_for(self.config.seed, progress.epoch, progress.step, *key).initial_seed()
        )
        with autocast(self.detector.precision, self.device):
            maps = self.forward(batch.images)
        parts = self.criterion(maps, batch.boxes, batch.labels)
        values = distributed.all_reduce_mean(torch.stack([parts[name].detach() for name in PARTS]))
        if self.device.type == "cpu":
            self._refuse_non_finite(
                dict(zip(PARTS, values.tolist(), strict=True)), progress.step + 1
            )
        self._learn(parts["loss"])
        self.meter.add(values)
        progress.step += 1
        return values

    def _learn(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        if self.config.train.max_grad_norm:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.config.train.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.average.update(self.network)

    def _refuse_non_finite(self, values: dict[str, float], step: int) -> None:
        """Values of the losses, or sums of them, up to `step`."""
        if all(map(math.isfinite, values.values())):
            return
        shown = ", ".join(f"{name} {value:g}" for name, value in values.items())
        saved = f"; {self.run / LAST} holds an earlier state" if (self.run / LAST).is_file() else ""
        raise UserError(
            f"the loss is not finite in epoch {self.progress.epoch + 1}, step {step} ({shown}): "
            f"lower train.lr, or set precision=fp32{saved}"
        )

    def _read_losses(self) -> None:
        """Into `progress`; what follows from a loss that is not finite goes no further than this."""
        self.progress.sums = self.meter.sums()
        self._refuse_non_finite(self.progress.sums, self.progress.step)

    def _means(self) -> dict[str, float]:
        return {name: self.progress.sums[name] / self.progress.step for name in PARTS}

    def _postfix(self) -> str:
        sums, steps = self.meter.latest()
        losses = " ".join(f"{name} {value / max(steps, 1):.3f}" for name, value in sums.items())
        return f"{losses} lr {self.optimizer.param_groups[0]['lr']:.4f}"

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
        row = {
            "epoch": progress.epoch + 1,
            "lr": self.optimizer.param_groups[0]["lr"],
            **self._means(),
        }
        if metrics is not None:
            row |= {
                "map50": metrics.map50,
                "map50_95": metrics.map50_95,
                "voc_ap50": metrics.voc_ap50,
            }
        progress.history.append({**row, "seconds": round(progress.seconds, 1)})
        progress.epoch, progress.step, progress.sums = progress.epoch + 1, 0, {}
        improved = self._judge(metrics)
        out_of_patience = bool(config.patience) and progress.stale >= config.patience
        progress.done = progress.epoch >= config.epochs or out_of_patience
        if improved and distributed.is_main_process():
            checkpoints.save(self.run / BEST, self.weights())
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
        if self.progress.step:
            self._read_losses()
        self.saved_at = time.monotonic()
        if not distributed.is_main_process():
            return
        training = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average_updates": self.average.updates,
            "progress": vars(self.progress),
        }
        checkpoints.save(self.run / LAST, {**self.weights(), "training": training})

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from the content of a `last.pt`; the next step is the one that would have come."""
        training = saved["training"]
        self.network.load_state_dict(training["network"])
        self.average.network.load_state_dict(saved["model"])
        self.average.updates = training["average_updates"]
        self.optimizer.load_state_dict(training["optimizer"])
        self.scaler.load_state_dict(training["scaler"])
        self.progress = Progress(**training["progress"])
