"""A forward pass in training mode before training, to catch what evaluation mode does not show."""

import copy
from functools import partial

import torch
from torch import nn

from utils.core.errors import UserError

REFUSED = "Expected more than 1"  # how the error of PyTorch's batch and instance norm starts


@torch.no_grad()
def dry_run(network: nn.Module, size: tuple[int, int], batch_size: int) -> None:
    """Raise if a normalization layer would see one value per channel, which has no variance.

    This happens if a step has one image and a map is 1 x 1: with a 32 x 32 input, or after global
    pooling in a user's block. The check runs on a copy, so weights, batch statistics and random
    states do not change.

    Args:
        network: the network to train.
        size: (height, width) of the input, pixels.
        batch_size: images per step on one device.

    Raises:
        UserError: training would fail; the message names the layer and the keys to change.
    """
    dry = copy.deepcopy(network).train()
    device = next(dry.parameters()).device
    entered = [""]
    for name, module in dry.named_modules():
        module.register_forward_pre_hook(partial(_remember, entered, name))
    images = torch.zeros(min(batch_size, 2), 3, *size, device=device)
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            dry(images)
    except ValueError as error:
        if not str(error).startswith(REFUSED):
            raise
        height, width = size
        raise UserError(
            f"training steps of {batch_size} image{'s' if batch_size > 1 else ''} with "
            f"input_size=[{height}, {width}]: {entered[-1]} gets a single value per channel, which "
            "has no variance to normalize by; expected more images per step (train.batch_size, and "
            "as many in the data) or a larger input"
        ) from None


def _remember(entered: list[str], name: str, module: nn.Module, inputs: object) -> None:
    entered.append(name)
