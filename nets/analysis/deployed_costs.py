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

Runs = Mapping[str, Callable[[], object]]  # title of a backend -> detects one image


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
        costs: of the blocks; their `deployed` is filled.
        backends: as `parse_backends` returns them.
        options: how to measure; on the CPU.

    Raises:
        UserError: a network cannot be exported, or does not run.
    """
    with tempfile.TemporaryDirectory() as folder:
        plain = _make_runs("none", backends, options, Path(folder, "none"))
        for cost in progress_bar(costs, desc="exported networks", unit="block", leave=True):
            with tempfile.TemporaryDirectory(dir=folder) as own:
                runs = _make_runs(cost.name, backends, options, Path(own, "block"))
                for title in backends:
                    cost.deployed[title] = _time_pairs(runs[title], plain[title], options.rounds)


def _time_pairs(
    block: Callable[[], object], plain: Callable[[], object], rounds: int
) -> PairedTimes:
    times = PairedTimes()
    with_block, without = (partial(short_milliseconds, run, CPU) for run in (block, plain))
    for index in range(rounds):
        times.add(with_block, without, plain_first=index % 2 == 1)
    return times


def _make_runs(
    block: str, backends: Mapping[str, tuple[str, str]], options: CostOptions, path: Path
) -> Runs:
    """Export a network, and load it in every backend."""
    torch.manual_seed(0)
    canvases = torch.randint(0, 256, (CALIBRATION_IMAGES, *options.size, 3), dtype=torch.uint8)
    runs = {}
    for title, (name, precision) in backends.items():
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
        runs[title] = partial(make_backend(name, spec), canvases[:1])
    return runs
