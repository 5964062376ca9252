"""What attention blocks cost in the runtimes of exported networks.

Each block is exported with the network, and timed beside the plain network: round by round, both
one after the other, so that a change in the machine's speed affects both.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from nets.analysis.block_costs import (
    NUM_CLASSES,
    BlockCost,
    CostOptions,
    PairedTimes,
    short_milliseconds,
)
from nets.inference.backends import (
    BACKENDS,
    ModelSpec,
    choose_device,
    choose_precision,
    make_backend,
)
from nets.yolo.yolov4_tiny import build_model
from utils.core.config import make_config
from utils.core.errors import UserError, nearest, shorten
from utils.core.progress import progress_bar

CALIBRATION_IMAGES = 8  # of noise: they decide the scales of int8, not its speed
CPU = torch.device("cpu")

Run = Callable[[], object]  # detects one image


def parse_backends(words: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return title -> (backend, precision) of words such as `onnxruntime` or `openvino:int8`.

    Raises:
        UserError: no such backend or precision, or its package is missing.
    """
    found = {}
    for word in words:
        name, _, precision = word.partition(":")
        if name not in BACKENDS:
            hint = nearest(name, BACKENDS)
            raise UserError(f"--backends {shorten(word)}: no such backend{hint}")
        precision = choose_precision(
            name, precision or BACKENDS[name][0], choose_device(name, "cpu")
        )
        found[f"{name} {precision}"] = (name, precision)
    return found


def measure_deployed_costs(
    costs: Sequence[BlockCost], backends: Mapping[str, tuple[str, str]], options: CostOptions
) -> None:
    """Add the times of exported networks to the costs of blocks.

    Args:
        costs: of the blocks; their `deployed` is filled, and `refused` where a backend takes no
            network with the block.
        backends: as `parse_backends` returns them.
        options: how to measure; on the CPU.

    Raises:
        UserError: the network without attention cannot be exported, or does not run.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "none")
        plain = {title: _make_run("none", backends[title], options, path) for title in backends}
        for cost in progress_bar(costs, desc="exported networks", unit="block", leave=True):
            with tempfile.TemporaryDirectory(dir=folder) as own:
                for title, backend in backends.items():
                    make_run = partial(_make_run, cost.name, backend, options, Path(own, "block"))
                    _measure(cost, title, make_run, plain[title], options.rounds)


def _measure(
    cost: BlockCost, title: str, make_run: Callable[[], Run], plain: Run, rounds: int
) -> None:
    cost.deployed[title] = PairedTimes()
    try:
        run = make_run()
    except UserError as error:  # the other blocks are still measured
        cost.refused[title] = str(error)
    else:
        cost.deployed[title] = _time_pairs(run, plain, rounds)


def _time_pairs(block: Run, plain: Run, rounds: int) -> PairedTimes:
    times = PairedTimes()
    with_block, without = (partial(short_milliseconds, run, CPU) for run in (block, plain))
    for index in range(rounds):
        times.add(with_block, without, plain_first=index % 2 == 1)
    return times


def _make_run(block: str, backend: tuple[str, str], options: CostOptions, path: Path) -> Run:
    """Load a network in a backend, exported if need be; backends share the exported file."""
    name, precision = backend
    torch.manual_seed(0)  # the same weights, and so the same file, for every backend
    canvases = torch.randint(0, 256, (CALIBRATION_IMAGES, *options.size, 3), dtype=torch.uint8)
    config = make_config(
        {
            "phi": block,
            "attention": {"at": list(options.sites)},
            "input_size": list(options.size),
            "device": "cpu",
            "precision": precision,
        }
    )
    network = build_model(config, NUM_CLASSES).eval().requires_grad_(False)
    names = [str(number) for number in range(NUM_CLASSES)]
    spec = ModelSpec(network, config, names, weights=path, calibration=canvases.numpy)
    return partial(make_backend(name, spec), canvases[:1])
