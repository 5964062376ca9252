"""What a training step changes: the weights, the optimizer, and the average of the weights."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import record_function

from nets.inference.detector import Detector
from nets.io.tensors import load_tensors
from nets.losses.yolo_loss import YoloLoss, weights_of_classes
from nets.yolo.yolov4_tiny import YOLOv4Tiny
from utils.core import distributed
from utils.core.devices import autocast
from utils.core.schema import Config
from utils.data.augmentation import Batch
from utils.engine.nonfinite import problem_in_gradient, problem_in_losses
from utils.engine.optim import ModelEMA, make_optimizer
from utils.engine.saved_state import restore_optimizer, restore_scaler

LOSS_NAMES = ("loss", "box", "objectness", "cls")


class Learner:
    """A network and what trains it, in one process or as one of several that share every batch.

    Phases of a step for a profiler: `forward`, `loss`, `backward`, `optimizer`, `ema`.

    Args:
        config: the experiment.
        detector: the network to train, and its device and precision.
        class_counts: objects of each class in the training images.
    """

    def __init__(self, config: Config, detector: Detector, class_counts: list[int]) -> None:
        self.config = config.train
        self.device = detector.device
        self.precision = detector.precision
        self.network: YOLOv4Tiny = detector.network
        self.optimizer = make_optimizer(self.network, config.train)
        self.ema = ModelEMA(self.network, config.train.ema_decay)
        if distributed.world_size() > 1:
            distributed.synchronize_batch_norms(self.network)
        self.criterion = YoloLoss(
            self.network.coder,
            config.loss,
            distributed.all_reduce_mean,
            distributed.world_size(),
            weights_of_classes(config.loss.class_weights, class_counts, self.device),
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self.forward: Callable[[Tensor], list[Tensor]] = self.network
        self._frozen: bool | None = None  # whether `forward` was made for a frozen backbone

    @property
    def lr(self) -> float:
        """Learning rate of the last step."""
        return self.optimizer.param_groups[0]["lr"]

    def start_epoch(self, frozen: bool) -> None:
        """Prepare the network for the steps of an epoch.

        Args:
            frozen: whether the backbone's weights and batch statistics keep their values.
        """
        self.network.train()
        self.network.backbone.train(not frozen)
        self.network.backbone.requires_grad_(not frozen)
        if frozen != self._frozen:
            self._frozen = frozen
            self.forward = self._wrap_network()

    def _wrap_network(self) -> Callable[[Tensor], list[Tensor]]:
        """The network, wrapped for several processes and compiled, as configured."""
        forward: nn.Module = self.network
        if distributed.world_size() > 1:
            # covers the parameters that need gradients now: wrapped again after the backbone thaws
            devices = [self.device] if self.device.type == "cuda" else None
            forward = DistributedDataParallel(forward, devices)
        return torch.compile(forward) if self.config.compile else forward

    def step(self, batch: Batch, lr: float) -> tuple[Tensor, str | None]:
        """Train on one batch.

        On a CPU, the weights stay as they are if a loss or a gradient is not finite; on a GPU,
        whose values would have to be waited for, only `scaler` looks.

        Args:
            batch: on the device: images float32 `(B, 3, H, W)` in 0..1, boxes `(B, N, 4)`, labels
                `(B, N)`.
            lr: learning rate.

        Returns:
            The values of `LOSS_NAMES`, float32 `(4,)`, on the device, and what is not finite, if
            anything.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        values, problem = self.add_gradients(batch)
        return values, problem or self._update_weights()

    def add_gradients(self, batch: Batch) -> tuple[Tensor, str | None]:
        """Run the forward and backward passes of a step.

        With `train.accumulate`, each part's loss counts as much as it has matches: their sum over
        all matches is the loss of the whole batch.

        Args:
            batch: as in `step`.

        Returns:
            As `step`.
        """
        parts = batch.split(self.config.accumulate)
        total = torch.zeros(len(LOSS_NAMES), device=self.device)
        matches = torch.zeros((), device=self.device)
        for part in parts:
            with record_function("forward"), autocast(self.precision, self.device):
                maps = self.forward(part.images)
            with record_function("loss"):
                losses = self.criterion(maps, part.boxes, part.labels)
                own = torch.stack([losses[name].detach() for name in LOSS_NAMES])
                values = distributed.all_reduce_mean(own)
            if self.device.type == "cpu":
                problem = problem_in_losses(dict(zip(LOSS_NAMES, values.tolist(), strict=True)))
                if problem is not None:
                    return values, problem
            if len(parts) == 1:
                self._backward(losses["loss"])
                return values, None
            divisor = losses["matches"].clamp(min=self.criterion.min_matches)
            self._backward(losses["loss"] * divisor)
            total += values * divisor
            matches += losses["matches"]
        divisor = matches.clamp(min=self.criterion.min_matches)
        torch._foreach_div_(self._gradients(), divisor)
        return total / divisor, None

    def _backward(self, loss: Tensor) -> None:
        with record_function("backward"):
            self.scaler.scale(loss).backward()

    def _gradients(self) -> list[Tensor]:
        return [one.grad for one in self.network.parameters() if one.grad is not None]

    def _update_weights(self) -> str | None:
        """Update the weights and their average, or return what is wrong with the gradient."""
        with record_function("optimizer"):
            self.scaler.unscale_(self.optimizer)
            norm = nn.utils.get_total_norm(self._gradients())
            if self.device.type == "cpu" and not self.scaler.is_enabled():
                problem = problem_in_gradient(self.network, norm)
                if problem is not None:
                    return problem
            if self.config.max_grad_norm:
                limit = self.config.max_grad_norm
                nn.utils.clip_grads_with_norm_(self.network.parameters(), limit, norm)
            self.scaler.step(self.optimizer)
            self.scaler.update()
        with record_function("ema"):
            self.ema.update(self.network)
        return None

    def state(self) -> dict[str, Any]:
        """The part of `TrainingState` that belongs to the learner."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average_updates": self.ema.updates,
        }

    def restore(self, saved: Mapping[str, Any], average: Mapping[str, Tensor], origin: str) -> None:
        """Take over a saved state.

        Args:
            saved: section `training` of a checkpoint that `check_training` accepted.
            average: the averaged weights.
            origin: the file.

        Raises:
            UserError: the tensors are those of another network or optimizer.
        """
        load_tensors(self.network, saved["network"], f"{origin}: training.network")
        load_tensors(self.ema.network, average, f"{origin}: model")
        self.ema.updates = saved["average_updates"]
        restore_optimizer(self.optimizer, saved["optimizer"], origin)
        restore_scaler(self.scaler, saved["scaler"], origin)
