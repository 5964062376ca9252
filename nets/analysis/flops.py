"""What a network costs: parameters and floating-point operations."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """`params`: trainable parameters. `gflops`: 10^9 operations for one image, two for a multiply-add, of
    convolutions, matrix products and attention; element-wise work is not counted.
    """

    params: int
    gflops: float


def count_parameters(network: nn.Module) -> int:
    """Parameters that an optimizer would train, frozen ones included."""
    return sum(parameter.numel() for parameter in network.parameters())


def measure_cost(network: nn.Module, size: tuple[int, int]) -> Cost:
    """The cost for one image of (height, width) pixels. Leaves the network as it was."""
    return Cost(count_parameters(network), count_gflops(network, size)[""])


@torch.no_grad()
def count_gflops(network: nn.Module, size: tuple[int, int]) -> Mapping[str, float]:
    """10^9 operations for one image of (height, width) pixels, of the whole network ("") and of each module by name.

    A module without such operations has no entry. Leaves the network as it was.
    """
    training = network.training
    device = next(network.parameters()).device
    counter = FlopCounterMode(display=False)
    with counter:
        network.eval()(torch.zeros(1, 3, *size, device=device))
    network.train(training)
    own = type(network).__name__
    counts = {
        name: sum(operations.values()) / 1e9
        for name, operations in counter.get_flop_counts().items()
    }
    named = {
        name.removeprefix(f"{own}."): gflops
        for name, gflops in counts.items()
        if name.startswith(f"{own}.")
    }
    return {**named, "": counter.get_total_flops() / 1e9}
