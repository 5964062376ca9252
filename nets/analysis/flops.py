"""What a network costs: parameters and floating-point operations."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """The cost of a network.

    Attributes:
        params: number of parameters.
        gflops: 10^9 operations per image, two per multiply-add: convolutions, matrix products and
            attention; element-wise operations are not counted.
    """

    params: int
    gflops: float


def count_parameters(network: nn.Module) -> int:
    """Return the number of parameters, frozen ones included."""
    return sum(parameter.numel() for parameter in network.parameters())


def measure_cost(network: nn.Module, size: tuple[int, int]) -> Cost:
    """Measure the cost for one image of `size`, (height, width) in pixels."""
    return Cost(count_parameters(network), count_gflops(network, size)[""])


@torch.no_grad()
def measure_blocks(
    blocks: Mapping[str, nn.Module] | nn.ModuleDict, shapes: Mapping[str, tuple[int, int, int]]
) -> Cost:
    """Measure the cost of attention blocks alone, on one map each.

    Args:
        blocks: by site; restored to their mode (training or evaluation).
        shapes: (channels, height, width) of the sites' maps.
    """
    params = operations = 0
    for site, block in blocks.items():
        device = next((parameter.device for parameter in block.parameters()), None)
        x = torch.zeros(1, *shapes[site], device=device)
        training = block.training
        with FlopCounterMode(display=False) as counter:
            block.eval()(x)
        block.train(training)
        params += count_parameters(block)
        operations += counter.get_total_flops()
    return Cost(params, operations / 1e9)


@torch.no_grad()
def count_gflops(network: nn.Module, size: tuple[int, int]) -> dict[str, float]:
    """Count the GFLOP (see `Cost`) of the network ("") and of each of its modules by name.

    A module without counted operations has no entry.

    Args:
        network: restored to its mode (training or evaluation).
        size: (height, width) of the image, pixels.
    """
    training = network.training
    device = next(network.parameters()).device
    counter = FlopCounterMode(display=False)
    with counter:
        network.eval()(torch.zeros(1, 3, *size, device=device))
    network.train(training)
    gflops = {"": counter.get_total_flops() / 1e9}
    prefix = f"{type(network).__name__}."
    for name, operations in counter.get_flop_counts().items():
        if name.startswith(prefix):
            gflops[name.removeprefix(prefix)] = sum(operations.values()) / 1e9
    return gflops
