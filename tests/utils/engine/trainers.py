"""Trainers of tiny trainings, and copies of their state."""

from pathlib import Path

import torch
from torch import Tensor

from utils.core.schema import Config
from utils.engine.datasets import open_dataset
from utils.engine.experiment import new_detector
from utils.engine.trainer import Trainer


def make_trainer(config: Config, run: str = "run") -> Trainer:
    folder = Path(run)
    folder.mkdir()
    train, val = open_dataset(config, "train"), open_dataset(config, "val")
    return Trainer(folder, config, new_detector(config, train), train, val)


def copy_state(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}
