"""The part of `last.pt` that continues a training: its types, and how it is restored."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field
from torch import Tensor

from nets.io.tensors import check_tensors
from utils.core.config import restore_config
from utils.core.errors import UserError
from utils.core.validation import SavedSection, validate
from utils.engine.muon import Muon

NotNegative = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]
Measured = Annotated[float, Field(allow_inf_nan=True)]  # NaN: there is nothing to find
# What each optimizer of `make_optimizer` keeps for a parameter
STATES = {
    Muon: {"momentum_buffer"},
    torch.optim.SGD: {"momentum_buffer"},
    torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"},
}


class Progress(SavedSection):
    """Progress of a training: everything that a checkpoint holds besides tensors.

    Attributes:
        epoch: epochs finished.
        step: steps finished in the current epoch.
        seconds: training time so far.
        sums: sum of each of `LOSS_NAMES` over those steps.
        history: one row per finished epoch.
        best: best map50_95 so far.
        stale: number of evaluations since the best one.
        skipped: steps of the current epoch that were skipped because they were not finite.
        done: whether training is finished or was stopped early.
    """

    epoch: NotNegative = 0
    step: NotNegative = 0
    seconds: Seconds = 0.0
    sums: dict[str, float] = Field(default_factory=dict)
    history: list[dict[str, Measured]] = Field(default_factory=list)
    best: float = -1.0
    stale: NotNegative = 0
    skipped: NotNegative = 0
    done: bool = False


class OptimizerState(SavedSection):
    """`Optimizer.state_dict()`; its groups hold what the configuration says, and are not used."""

    state: dict[int, dict[str, Tensor | None]]
    param_groups: list[dict[str, Any]]


class ScalerState(SavedSection):
    """`GradScaler.state_dict()` in fp16."""

    scale: Annotated[float, Field(gt=0)]
    growth_factor: Annotated[float, Field(gt=1)]
    backoff_factor: Annotated[float, Field(gt=0, lt=1)]
    growth_interval: Annotated[int, Field(gt=0)]
    growth_tracker: NotNegative = Field(alias="_growth_tracker")


class SplitState(SavedSection):
    """`utils.data.sample.digest` of a split."""

    images: NotNegative
    objects: NotNegative
    digest: str


class TrainingState(SavedSection):
    """The section `training` of a checkpoint.

    Attributes:
        network: the tensors of the network; the checkpoint's `model` holds their averages.
        optimizer: see `OptimizerState`.
        scaler: state of the gradient scaler, empty unless the precision is fp16.
        average_updates: how often the averages were updated.
        progress: see `Progress`.
        data: split -> its images and labels; files of earlier versions lack it.
    """

    network: dict[str, Tensor]
    optimizer: OptimizerState
    scaler: dict[str, float]
    average_updates: NotNegative
    progress: Progress
    data: dict[str, SplitState] = Field(default_factory=dict)


class _Last(SavedSection):
    model_config = ConfigDict(extra="ignore")

    training: TrainingState


def check_training(content: Mapping[str, Any], path: Path) -> None:
    """Refuse a checkpoint whose section `training` cannot be restored.

    Args:
        content: what `checkpoints.load` returned.
        path: the file.

    Raises:
        UserError: names the file, the key, what was expected and what was found.
    """
    state = validate(_Last, content, str(path)).training
    check_tensors(state.network, f"{path}: training.network")
    progress, epochs = state.progress, restore_config(content["config"], str(path)).train.epochs
    rows, epoch = len(progress.history), progress.epoch
    agree = rows == epoch == content["epoch"]
    if not agree or epochs == "auto" or epoch + (not progress.done) > epochs:
        raise UserError(
            f"{path}: training.progress: epoch {epoch} of {epochs}, {rows} rows of history, done "
            f"{str(progress.done).lower()}, but the weights are those of epoch {content['epoch']}"
        )
    for index, values in state.optimizer.state.items():
        tensors = {key: value for key, value in values.items() if value is not None}
        check_tensors(tensors, f"{path}: training.optimizer.state.{index}")


def restore_optimizer(
    optimizer: torch.optim.Optimizer, saved: Mapping[str, Any], origin: str
) -> None:
    """Restore what an optimizer keeps per parameter; its settings stay those of the configuration.

    Args:
        optimizer: of the same configuration.
        saved: `training.optimizer` of a checkpoint that `check_training` accepted.
        origin: the file.

    Raises:
        UserError: the state is of another optimizer or network.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    names = STATES[type(optimizer)]
    for index, values in saved["state"].items():
        key = f"{origin}: training.optimizer.state.{index}"
        if not 0 <= index < len(parameters):
            raise UserError(f"{key}: the network has only {len(parameters)} parameters")
        if values.keys() != names:
            raise UserError(f"{key}: expected {', '.join(sorted(names))}, got {', '.join(values)}")
        for name, value in values.items():
            shape = () if name == "step" else parameters[index].shape
            if value is not None and value.shape != shape:
                raise UserError(
                    f"{key}.{name}: shape {tuple(value.shape)}, expected {tuple(shape)}"
                )
    optimizer.load_state_dict({**optimizer.state_dict(), "state": saved["state"]})


def restore_scaler(scaler: torch.amp.GradScaler, saved: Mapping[str, Any], origin: str) -> None:
    """Restore the scale of the gradients, which only fp16 has.

    Raises:
        UserError: the state of the scaler is malformed.
    """
    if scaler.is_enabled():
        validate(ScalerState, dict(saved), f"{origin}: training.scaler")
        scaler.load_state_dict(dict(saved))
