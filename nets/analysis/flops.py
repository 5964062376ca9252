"""What a network costs: parameters and floating-point operations."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
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


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network in evaluation mode, and each of its modules back into its own mode."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def blank_image(network: nn.Module, size: tuple[int, int]) -> Tensor:
    """Return zeros `(1, 3, *size)` on the device of a network and in the dtype of its weights."""
    return next(network.parameters()).new_zeros(1, 3, *size)


@torch.no_grad()
def measure_blocks(
    blocks: Mapping[str, nn.Module] | nn.ModuleDict, shapes: Mapping[str, tuple[int, int, int]]
) -> Cost:
    """Measure the cost of attention blocks alone, on one map each.

    Args:
        blocks: by site; restored to their modes (training or evaluation).
        shapes: (channels, height, width) of the sites' maps.
    """
    params = operations = 0
    for site, block in blocks.items():
        like = next(block.parameters(), torch.zeros(()))
        with evaluating(block), FlopCounterMode(display=False) as counter:
            block(like.new_zeros(1, *shapes[site]))
        params += count_parameters(block)
        operations += counter.get_total_flops()
    return Cost(params, operations / 1e9)


@torch.no_grad()
def count_gflops(network: nn.Module, size: tuple[int, int]) -> dict[str, float]:
    """Count the GFLOP (see `Cost`) of the network ("") and of each of its modules by name.

    A module without counted operations has no entry.

    Args:
        network: its modules are restored to their modes (training or evaluation).
        size: (height, width) of the image, pixels.
    """
    with evaluating(network), FlopCounterMode(display=False) as counter:
        network(blank_image(network, size))
    gflops = {"": counter.get_total_flops() / 1e9}
    prefix = f"{type(network).__name__}."
    for name, operations in counter.get_flop_counts().items():
        if name.startswith(prefix):
            gflops[name.removeprefix(prefix)] = sum(operations.values()) / 1e9
    return gflops
