"""Where the time of a training step goes, seen from outside: the trainer's own step, watched at its seams."""

import contextlib
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.core.timing import synchronize
from utils.data.augmentation import Batch
from utils.engine.trainer import Trainer

PARTS = {
    "batch": "making the batch: cache, mosaic, affine, color",
    "forward": "forward",
    "loss": "loss and assignment, forward",
    "loss_backward": "loss, backward",
    "backward": "backward",
    "optimizer": "clipping and optimizer",
    "average": "moving average of the weights",
    "rest": "the rest",
}


class Watch:
    """Adds up the time between marks, by the name of the part that ends there."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.last = self.now()

    def now(self) -> float:
        """Seconds; on a GPU after all that it was given."""
        synchronize(self.device)
        return perf_counter()

    def mark(self, part: str, at: float | None = None) -> None:
        """`part` ends now, or ended at `at`."""
        at = self.now() if at is None else at
        self.seconds[part] += at - self.last
        self.last = at


def watched_step(trainer: Trainer, batches: Iterator[Batch]) -> dict[str, float]:
    """Make a batch, train on it, and tell the seconds of each of `PARTS`.

    On a GPU every seam waits for it, so that the parts add up; a step that nobody watches overlaps them.
    """
    watch = Watch(trainer.device)
    batch = next(batches)
    watch.mark("batch")
    with _seams(trainer, watch):
        trainer.step(batch)
    watch.mark("rest")
    return watch.seconds


@contextlib.contextmanager
def _seams(trainer: Trainer, watch: Watch) -> Iterator[None]:
    """Marks around what the trainer calls, and in the backward pass."""
    forward, criterion, update = trainer.forward, trainer.criterion, trainer.ema.update
    last_gradient = [0.0]

    def note_gradient(_: Tensor) -> None:
        last_gradient[0] = watch.now()

    def watched_criterion(maps: list[Tensor], *targets: Tensor) -> dict[str, Tensor]:
        first = _once(lambda: watch.mark("loss_backward"))
        for one in maps:  # the first map whose gradient is asked for: all of the loss lies behind
            one.register_hook(lambda _: first())
        parts = criterion(maps, *targets)
        watch.mark("loss")
        parts["loss"].register_hook(lambda _: watch.mark("rest"))
        return parts

    trained = [parameter for parameter in trainer.network.parameters() if parameter.requires_grad]
    hooks: list[Any] = [
        parameter.register_post_accumulate_grad_hook(note_gradient) for parameter in trained
    ]
    hooks.append(
        trainer.optimizer.register_step_pre_hook(
            lambda *_: watch.mark("backward", last_gradient[0])
        )
    )
    hooks.append(trainer.optimizer.register_step_post_hook(lambda *_: watch.mark("optimizer")))
    trainer.forward = _between(forward, watch, "forward")
    trainer.ema.update = _between(update, watch, "average")  # type: ignore[method-assign]
    # an instance's own entry hides the module of that name; deleting it brings the module back
    trainer.__dict__["criterion"] = watched_criterion
    try:
        yield
    finally:
        trainer.forward, trainer.criterion = forward, criterion
        trainer.ema.update = update  # type: ignore[method-assign]
        for hook in hooks:
            hook.remove()


def _between(call: Callable[..., Any], watch: Watch, part: str) -> Callable[..., Any]:
    def run(*arguments: Any) -> Any:
        watch.mark("rest")
        result = call(*arguments)
        watch.mark(part)
        return result

    return run


def _once(call: Callable[[], None]) -> Callable[[], None]:
    waiting = [call]
    return lambda: waiting.pop()() if waiting else None


def shares(steps: list[dict[str, float]]) -> dict[str, np.ndarray]:
    """Percent of the step that each part took, `(steps,)`; `loss` with its backward pass as `loss_whole`."""
    table = {part: np.array([step[part] for step in steps]) for part in PARTS}
    whole = np.sum(list(table.values()), axis=0)
    found = {part: 100 * seconds / whole for part, seconds in table.items()}
    return {**found, "loss_whole": found["loss"] + found["loss_backward"]}
