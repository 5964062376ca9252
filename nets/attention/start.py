"""What a new block does to its input, before any training."""

import torch
from torch import nn

MAP = (13, 9)
ERASED = 0.25  # blocks that keep their input correlate by more than 0.4, the others below 0.1


@torch.no_grad()
def input_correlation(block: nn.Module, channels: int) -> float:
    """Correlate random features with what a block makes of them.

    Args:
        block: restored to its mode; any device.
        channels: C.

    Returns:
        -1 to 1: 1 if the block returns its input, or scales it as a whole; 0 if nothing is left.
    """
    state = next(block.parameters(), torch.zeros(()))
    noise = torch.randn(1, channels, *MAP, generator=torch.Generator().manual_seed(0))
    x = noise.to(state)
    training = block.training
    y = block.eval()(x)
    block.train(training)
    return torch.corrcoef(torch.stack([x.flatten(), y.flatten()]).float())[0, 1].item()


def keeps_input(block: nn.Module, channels: int) -> bool:
    """Whether the features of a pretrained network survive the block as it is."""
    return input_correlation(block, channels) > ERASED
