"""Optimizer, learning-rate schedule and the moving average (EMA) of the weights."""

import copy
import math

import torch
from torch import nn

from nets.yolo.yolov4_tiny import YOLOv4Tiny
from utils.core.schema import TrainConfig
from utils.engine.muon import Muon

DEFAULT_LR = {"muon": 0.01, "sgd": 0.01, "adamw": 0.001}
MAX_WARMUP_SHARE = 1 / 3  # of all steps; limits the warm-up of short runs


def make_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Make Muon, SGD with Nesterov momentum, or AdamW.

    Weight decay acts on convolution and linear weights only: pulling biases, batch-norm scales and
    the scalar gates of attention to zero does not regularize.
    """
    rate = config.lr or DEFAULT_LR[config.optimizer]
    named = dict(network.named_parameters())
    matrices = []
    if config.optimizer == "muon":
        matrices = [named.pop(name) for name in _hidden_matrices(network)]
    decayed = [p for p in named.values() if p.ndim > 1]
    others = [p for p in named.values() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if matrices:
        return Muon(matrices, groups, rate, config.momentum, config.weight_decay)
    if config.optimizer != "adamw":
        return torch.optim.SGD(
            groups, rate, momentum=config.momentum, nesterov=config.momentum > 0, foreach=True
        )
    return torch.optim.AdamW(groups, rate, betas=(config.momentum, 0.999), foreach=True)


def _hidden_matrices(network: nn.Module) -> list[str]:
    """Names of the weights that Muon orthogonalizes.

    Not those of the prediction layers, whose rows have meanings of their own, and of depthwise
    convolutions, which are no matrices.
    """
    return [
        name
        for name, parameter in network.named_parameters()
        if parameter.ndim > 1 and parameter.shape[1] > 1 and not name.startswith("predict")
    ]


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """Linear warm-up times a cosine from the peak to `final_lr_ratio` of it.

    Args:
        config: the schedule.
        step: index of the step in the whole training.
        steps_per_epoch: number of steps.
    """
    peak = config.lr or DEFAULT_LR[config.optimizer]
    total = config.epoch_count * steps_per_epoch
    warmup = min(config.warmup_epochs * steps_per_epoch, total * MAX_WARMUP_SHARE)
    cosine = (1 + math.cos(math.pi * step / total)) / 2
    rate = peak * (config.final_lr_ratio + (1 - config.final_lr_ratio) * cosine)
    return rate * min(1.0, (step + 1) / (warmup + 1))


class ModelEMA:
    """Exponential moving average of a network's parameters and buffers.

    The decay of update t is min(decay, (1 + t) / (10 + t)): small at first, so that the initial
    weights are soon forgotten.

    Args:
        network: copied; the copy is in evaluation mode.
        decay: upper limit, 0..1; with 0 the average equals the network.
    """

    def __init__(self, network: YOLOv4Tiny, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.network: YOLOv4Tiny = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move the average towards `network`; integer buffers are copied."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        averages, values = [], []
        state = network.state_dict()
        for name, average in self.network.state_dict().items():
            if average.is_floating_point():
                averages.append(average)
                values.append(state[name])
            else:
                average.copy_(state[name])
        torch._foreach_lerp_(averages, values, 1 - decay)
