"""The training loop: epochs, evaluations, and what is saved."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from nets.inference.detector import Detector
from nets.io import checkpoints
from utils.core import distributed
from utils.core.errors import NonFiniteError, UserError, counted, is_out_of_memory
from utils.core.progress import progress_bar
from utils.core.schema import Config
from utils.core.signals import deferred
from utils.data.augmentation import Batch
from utils.data.dataset import DetectionDataset
from utils.data.sample import digest
from utils.engine.batches import BatchMaker, generator_for, resident_pool
from utils.engine.evaluation import evaluate_detector
from utils.engine.learner import LOSS_NAMES, Learner
from utils.engine.log import RunLog
from utils.engine.meter import LossMeter
from utils.engine.nonfinite import NonFiniteGuard
from utils.engine.optim import learning_rate
from utils.engine.progress_text import Clock, epoch_line
from utils.engine.report import write_batch
from utils.engine.runs import BEST, LAST
from utils.engine.saved_state import Progress
from utils.metrics import Metrics

DROPOUT_STREAM = 1  # keeps the seeds of dropout apart from those of the data


class Trainer:
    """Trains a network, in one process or as one of several that share every batch.

    Phases of a step for a profiler: `batch`, and those of `Learner`.

    Args:
        run: folder of the run; only the main process writes to it.
        config: the experiment.
        detector: the network to train, its class names and device.
        train: images to train on.
        val: images to evaluate on.

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
        self.run = run
        self.config = config
        self.detector = detector
        self.val = val
        self.device = detector.device
        pool = resident_pool(train, self.device, config.data.gpu_cache_gb)
        self.batches = BatchMaker(
            train,
            config.augment,
            config.train.images_per_step,
            config.seed,
            self.device,
            pool,
            config.train.multi_scale,
            config.train.accumulate,
        )
        self.learner = Learner(config, detector, train.count_objects().tolist())
        self.meter = LossMeter(LOSS_NAMES, self.device)
        self.log = RunLog(run, config)
        self.progress = Progress()
        self._saved_at = time.monotonic()
        self._digests = {"train": digest(train.samples), "val": digest(val.samples)}
        self._guard = NonFiniteGuard(detector.network)
        self._is_whole = True  # whether the state is that after a whole step
        self._clock = self._start_clock()

    def fit(self) -> Progress:
        """Train to the end, or until `patience` runs out."""
        self._clock = self._start_clock()
        while not self.progress.done:
            with _advised(self._memory_advice()):
                self.run_epoch()
            with _advised("in the evaluation: lower eval.batch_size"):
                metrics = self._evaluate() if self._evaluation_due() else None
            with self._undivided():
                self._end_epoch(metrics)
            self.log.send(self.progress.history)
        self.log.write(self.progress.history)  # the curves may be behind, also of a resumed run
        self.log.draw()
        return self.progress

    def save_stopped(self) -> bool:
        """Save the state after the last whole step; return whether there is one to resume."""
        if not self._is_whole:
            return (self.run / LAST).is_file()
        with deferred():
            self._save_last()
        return True

    def ema_detector(self) -> Detector:
        """Return a detector with the averaged weights."""
        return Detector(self.learner.ema.network, self.config, self.detector.names, backend="torch")

    # one epoch

    def run_epoch(self, show: bool = True) -> None:
        """Run the remaining steps of the current epoch; the CPU waits for a GPU only at the end.

        Args:
            show: whether to show a bar, or a line per minute where there is no terminal.
        """
        progress, config = self.progress, self.config.train
        closing = progress.epoch >= config.epoch_count - self.config.augment.close_mosaic
        self.start_epoch()
        started = time.perf_counter()
        title = f"epoch {progress.epoch + 1}/{config.epoch_count}"
        total, done = self.batches.steps, progress.step
        with progress_bar(
            desc=title, total=total, initial=done, unit="step", leave=True, show=show
        ) as bar:
            for batch in self.batches.epoch(progress.epoch, closing, done):
                with self._undivided():
                    self.step(batch)
                    self._check_finite(*self.meter.latest())
                    bar.set_postfix_str(self._postfix(), refresh=False)
                    bar.update()
                    if show and bar.disable:
                        self._tell()
                    if self._save_due():
                        self._save_last()
        self._read_losses()
        progress.seconds += time.perf_counter() - started

    def _start_clock(self) -> Clock:
        steps = self.batches.steps
        done = self.progress.epoch * steps + self.progress.step
        return Clock(self.config.train.epoch_count * steps, done)

    def _tell(self) -> None:
        """Print a line per minute, where no bar is shown, such as in a log file."""
        if not (distributed.is_main_process() and self._clock.is_due()):
            return
        epoch, step, steps = self.progress.epoch, self.progress.step, self.batches.steps
        left = self._clock.left(epoch * steps + step)
        where = f"epoch {epoch + 1}/{self.config.train.epoch_count}, step {step}/{steps}"
        print(f"{where}  {self._postfix()}  ({left})")

    def _memory_advice(self) -> str:
        """What to do if memory runs out in a training step."""
        config = self.config.train
        height, width = self.config.input_size
        images = config.images_per_pass
        smaller = "a smaller input_size"
        if images > 1:
            parts = 2 * config.accumulate
            smaller = f"train.batch_size={images // 2} train.accumulate={parts}, or {smaller}"
        return f"with {images} images of {width}x{height} at a time: set {smaller}"

    @contextmanager
    def _undivided(self) -> Iterator[None]:
        """Change the state in a block that a signal does not cut in two."""
        with deferred():
            self._is_whole = False
            yield
            self._is_whole = True

    def start_epoch(self) -> None:
        """Prepare the network and the loss meter for the steps of the current epoch.

        In the first `freeze_epochs` the backbone's weights and batch statistics do not change.
        """
        self.learner.start_epoch(self.progress.epoch < self.config.train.freeze_epochs)
        self.meter.start(self.progress.sums, self.progress.step - self.progress.skipped)

    def step(self, batch: Batch) -> Tensor:
        """Train on one batch; `start_epoch` comes before the first step of an epoch.

        On a CPU, a step whose loss or gradient is not finite changes nothing and is reported. On a
        GPU, whose values are read a few steps late, `run_epoch` ends the training instead.

        Args:
            batch: on the device: images float32 `(B, 3, H, W)` in 0..1, boxes `(B, N, 4)`, labels
                `(B, N)`.

        Returns:
            The values of `LOSS_NAMES`, float32 `(4,)`, on the device.

        Raises:
            NonFiniteError: too many steps in a row were not finite.
        """
        done = self.progress.epoch * self.batches.steps + self.progress.step
        self._seed_dropout()
        self._guard.start_step()
        lr = learning_rate(self.config.train, done, self.batches.steps)
        values, problem = self.learner.step(batch, lr)
        if problem is None:
            self.meter.add(values)
            self._guard.finish_step()
        else:
            self._skip_step(problem, batch)
        self.progress.step += 1
        return values

    def _skip_step(self, problem: str, batch: Batch) -> None:
        progress = self.progress
        where = f"epoch {progress.epoch + 1}, step {progress.step + 1}"
        drawing = self.run / f"skipped-{progress.epoch + 1}-{progress.step + 1}.png"
        write_batch(drawing, batch, self.detector.names)
        images = self.batches.image_names(progress.epoch, progress.step)
        self._guard.skip_step(where, problem, images, drawing)
        progress.skipped += 1

    def _seed_dropout(self) -> None:
        """Seed the global generator by step: dropout in attention blocks draws from it."""
        key = [DROPOUT_STREAM]
        if distributed.rank():
            key.append(distributed.rank())
        generator = generator_for(self.config.seed, self.progress.epoch, self.progress.step, *key)
        torch.manual_seed(generator.initial_seed())

    def _check_finite(self, values: dict[str, float], step: int) -> None:
        """Refuse losses, or sums of losses up to `step`, that are not finite."""
        if all(map(math.isfinite, values.values())):
            return
        shown = ", ".join(f"{name} {value:g}" for name, value in values.items())
        saved = f"; {self.run / LAST} holds an earlier state" if (self.run / LAST).is_file() else ""
        raise NonFiniteError(
            f"the loss is not finite in epoch {self.progress.epoch + 1}, step {step} ({shown}): "
            f"lower train.lr, or set precision=fp32{saved}"
        )

    def _read_losses(self) -> None:
        """Copy the loss sums into `progress`; called before every save, so NaN is never saved."""
        self.progress.sums = self.meter.sums()
        self._check_finite(self.progress.sums, self.progress.step)

    def _postfix(self) -> str:
        sums, steps = self.meter.latest()
        losses = " ".join(f"{name} {value / max(steps, 1):.3f}" for name, value in sums.items())
        return f"{losses} lr {self.learner.lr:.4f}"

    # between epochs

    def _evaluation_due(self) -> bool:
        epochs = self.config.train.epoch_count
        every = self.config.train.eval_every or max(1, epochs // 10)
        finished = self.progress.epoch + 1
        return finished % every == 0 or finished == epochs

    def _evaluate(self) -> Metrics:
        return evaluate_detector(self.ema_detector(), self.val).metrics

    def _end_epoch(self, metrics: Metrics | None) -> None:
        """Record the epoch, decide whether to stop, and save."""
        progress, config = self.progress, self.config.train
        progress.history.append(self._history_row(metrics))
        progress.epoch += 1
        progress.step = progress.skipped = 0
        progress.sums = {}
        improved = metrics is not None and self._update_best(metrics.map50_95)
        out_of_patience = metrics is not None and 0 < config.patience <= progress.stale
        progress.done = progress.epoch >= config.epoch_count or out_of_patience
        chosen = progress.done if config.select == "last" else improved
        if chosen and distributed.is_main_process():
            checkpoints.save(self.run / BEST, self.weights())
        self._save_last()
        self.log.write(progress.history)
        left = self._clock.left(progress.epoch * self.batches.steps)
        if out_of_patience:
            left = f"stopped: {counted(progress.stale, 'evaluations')} without improvement"
        tqdm.write(epoch_line(progress.history[-1], config.epoch_count, improved, left))

    def _history_row(self, metrics: Metrics | None) -> dict[str, float]:
        progress = self.progress
        row = {"epoch": progress.epoch + 1, "lr": self.learner.lr}
        steps = progress.step - progress.skipped
        for name in LOSS_NAMES:
            row[name] = progress.sums[name] / steps if steps else math.nan
        if metrics is not None:
            row["map50"] = metrics.map50
            row["map50_95"] = metrics.map50_95
            row["voc_ap50"] = metrics.voc_ap50
        row["seconds"] = round(progress.seconds, 1)
        return row

    def _update_best(self, map50_95: float) -> bool:
        """Whether this is the best evaluation so far; NaN (no objects to find) counts as 0.

        If nothing was ever measured, the newest weights count as the best, and do not end patience.
        """
        if math.isnan(map50_95) and self.progress.best < 0:
            return True
        score = 0.0 if math.isnan(map50_95) else map50_95
        improved = score > self.progress.best
        self.progress.best = max(score, self.progress.best)
        self.progress.stale = 0 if improved else self.progress.stale + 1
        return improved

    # checkpoints

    def weights(self) -> dict[str, Any]:
        """Return the content of `best.pt`: averaged weights and everything needed to use them."""
        return checkpoints.describe(
            self.learner.ema.network, self.config, self.detector.names, self.progress.epoch
        )

    def _save_due(self) -> bool:
        """Whether to save within the epoch; at its end it is saved anyway."""
        waited = time.monotonic() - self._saved_at
        return (
            waited > 60 * self.config.train.save_minutes and self.progress.step < self.batches.steps
        )

    def _save_last(self) -> None:
        if self.progress.step:
            self._read_losses()
        self._saved_at = time.monotonic()
        if not distributed.is_main_process():
            return
        training = {
            **self.learner.state(),
            "progress": vars(self.progress),
            "data": self._digests,
        }
        checkpoints.save(self.run / LAST, {**self.weights(), "training": training})

    def restore(self, saved: dict[str, Any]) -> None:
        """Continue from a checkpoint, at the step that would have come next.

        Args:
            saved: content of a `last.pt`.

        Raises:
            UserError: the data is not that of the checkpoint, or its tensors do not fit.
        """
        training, origin = saved["training"], str(self.run / LAST)
        self._check_data(training.get("data", {}))  # files of earlier versions lack it
        self.learner.restore(training, saved["model"], origin)
        # as it was saved: validation would turn the integers of the history into floats
        self.progress = Progress.model_construct(**training["progress"])

    def _check_data(self, saved: dict[str, dict[str, Any]]) -> None:
        """Refuse images or labels other than those that the training started with."""
        for split, here in self._digests.items():
            before = saved.get(split, here)
            if before != here:
                raise UserError(
                    f"{self.run}: the {split} split has changed since this training was stopped: "
                    f"{before['images']} images with {before['objects']} objects then, "
                    f"{here['images']} with {here['objects']} now; restore the data, or start a "
                    f"new run with weights={self.run / LAST}"
                )


@contextmanager
def _advised(advice: str) -> Iterator[None]:
    """Say what to do if memory runs out."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(f"out of memory {advice}") from None
