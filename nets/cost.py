"""What a network costs: parameters and floating-point operations."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """`params`: trainable parameters. `gflops`: 10^9 operations for one picture, two for a multiply-add, of
    convolutions, matrix products and attention; element-wise work is not counted."""

    params: int
    gflops: float


def count_parameters(network: nn.Module) -> int:
    """Parameters that an optimiser would train, frozen ones included."""
    return sum(parameter.numel() for parameter in network.parameters())


@torch.no_grad()
def measure_cost(network: nn.Module, size: tuple[int, int]) -> Cost:
    """The cost for one picture of (height, width) pixels. Leaves the network as it was."""
    training = network.training
    device = next(network.parameters()).device
    counter = FlopCounterMode(display=False)
    with counter:
        network.eval()(torch.zeros(1, 3, *size, device=device))
    network.train(training)
    return Cost(count_parameters(network), counter.get_total_flops() / 1e9)
