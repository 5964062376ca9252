"""One forward pass in training mode before a training: finds what evaluation mode does not show."""

import copy
from functools import partial

import torch
from torch import nn

from utils.core.errors import UserError

REFUSED = (
    "Expected more than 1"  # how PyTorch's batch and instance normalization begin their complaint
)


@torch.no_grad()
def dry_run(network: nn.Module, size: tuple[int, int], batch_size: int) -> None:
    """Refuse a training in which a normalization gets a single value a channel, which has no variance.

    That is so where one image a step meets a map of 1 x 1: at an input of 32 x 32, or behind global pooling in a
    block of the user's own. Works on a copy: weights, batch statistics and random states stay as they are.

    Args:
        size: (height, width) of the input. batch_size: images a step on one device.

    Raises:
        UserError: names the layer and the keys.
    """
    trial = copy.deepcopy(network).train()
    device = next(trial.parameters()).device
    entered = [""]
    for name, module in trial.named_modules():
        module.register_forward_pre_hook(partial(_remember, entered, name))
    images = torch.zeros(min(batch_size, 2), 3, *size, device=device)
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            trial(images)
    except ValueError as error:
        if not str(error).startswith(REFUSED):
            raise
        height, width = size
        raise UserError(
            f"training steps of {batch_size} image{'s' * (batch_size > 1)} with input_size=[{height}, {width}]: "
            f"{entered[-1]} gets a single value a channel, which has no variance to normalize by; expected more "
            "images a step (train.batch_size, and as many in the data) or a larger input"
        ) from None


def _remember(entered: list[str], name: str, module: nn.Module, inputs: object) -> None:
    entered.append(name)
