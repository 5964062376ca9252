"""Optimizer, learning-rate schedule and the moving average of the weights."""

import copy
import math

import torch
from torch import nn

from nets.yolo.yolov4_tiny import YOLOv4Tiny
from utils.core.schema import TrainConfig

DEFAULT_LR = {"sgd": 0.01, "adamw": 0.001}
WARMUP_SHARE = 1 / 3  # a short run spends no more than this share of its steps on warm-up


def make_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, or AdamW; weight decay on convolution and linear weights only.

    Biases, batch-norm scales and attention's scalar gates are not decayed: pulling them to zero is no regularization.
    """
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    rate = config.lr or DEFAULT_LR[config.optimizer]
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            groups, rate, momentum=config.momentum, nesterov=config.momentum > 0, foreach=True
        )
    return torch.optim.AdamW(groups, rate, betas=(config.momentum, 0.999), foreach=True)


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """The rate of global step `step`: linear warm-up, then cosine from the peak to `final_lr_ratio` of it."""
    peak = config.lr or DEFAULT_LR[config.optimizer]
    total = config.epochs * steps_per_epoch
    warmup = min(config.warmup_epochs * steps_per_epoch, total * WARMUP_SHARE)
    cosine = (1 + math.cos(math.pi * step / total)) / 2
    rate = peak * (config.final_lr_ratio + (1 - config.final_lr_ratio) * cosine)
    return rate * min(1.0, (step + 1) / (warmup + 1))


class ModelEMA:
    """Exponential moving average of a network's parameters and buffers.

    The decay of update t is min(decay, (1 + t) / (10 + t)): short at first, so that the average forgets the start.

    Args:
        network: what is averaged. decay: limit, 0..1; 0 makes the average equal the network.
    """

    def __init__(self, network: YOLOv4Tiny, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.network: YOLOv4Tiny = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        mine, theirs = list(self._tensors(self.network)), list(self._tensors(network))
        floats = [i for i, tensor in enumerate(mine) if tensor.is_floating_point()]
        torch._foreach_lerp_([mine[i] for i in floats], [theirs[i] for i in floats], 1 - decay)
        for own, other in zip(mine, theirs, strict=True):
            if not own.is_floating_point():
                own.copy_(other)

    @staticmethod
    def _tensors(network: nn.Module):
        return network.state_dict().values()
