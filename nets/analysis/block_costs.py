"""What each attention block costs: parameters, operations, memory and milliseconds.

Times are medians over rounds. A round times every block once, in a new order, and the network
without attention right before or after each block, so that a change in the machine's speed affects
both; what a block adds is the median over these pairs. All blocks share one network; only the
attention is swapped.
"""

import random
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import nn

from nets import attention
from nets.analysis.flops import Cost, measure_blocks, measure_cost
from nets.analysis.saved_memory import saved_bytes
from nets.analysis.sites import site_shapes
from nets.yolo.yolov4_tiny import SITES, YOLOv4Tiny
from utils.core.devices import DTYPES, autocast, lay_channels_last, pick_device, pick_precision
from utils.core.environment import describe_device
from utils.core.errors import UserError, nearest
from utils.core.progress import progress_bar
from utils.core.schema import AttentionConfig
from utils.core.timing import Stat, milliseconds

NUM_CLASSES = 20
FORWARD_REPEATS = 3  # a single forward pass is short; a round takes the median of this many


@dataclass(frozen=True)
class CostOptions:
    """How to measure.

    Attributes:
        sites: where a block is placed.
        size: (height, width) of the input, pixels.
        rounds: number of rounds.
        batch: images per training step; a forward pass has one image.
        device: as in the configuration.
        precision: as in the configuration.
    """

    sites: tuple[str, ...] = tuple(AttentionConfig().at)
    size: tuple[int, int] = (416, 416)
    rounds: int = 20
    batch: int = 4
    device: str = "auto"
    precision: str = "auto"


@dataclass
class PairedTimes:
    """Milliseconds with a block, and without attention right before or after; a pair per round."""

    block: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)

    def add(
        self, block: Callable[[], float], plain: Callable[[], float], plain_first: bool
    ) -> None:
        """Add a pair.

        Args:
            block: runs the network with the block and returns milliseconds.
            plain: likewise, without attention.
            plain_first: which of them runs first.
        """
        runs = [(plain, self.plain), (block, self.block)]
        for run, times in runs if plain_first else reversed(runs):
            times.append(run())

    @property
    def median(self) -> float:
        """Median time with the block."""
        return float(np.median(self.block))

    @property
    def added_percent(self) -> Stat:
        """What the block adds to the plain network, in percent, over the pairs."""
        return Stat.of(100 * (np.array(self.block) / np.array(self.plain) - 1))


@dataclass(frozen=True)
class BlockCost:
    """What a block adds to the plain network, and its times.

    Attributes:
        name: registered name, or `package.module:Class`.
        params: number of parameters added.
        gflops: 10^9 operations per image added, see `Cost`.
        memory: 10^6 bytes per image that a training step keeps for the backward pass.
        forward: times of a forward pass of one image.
        training: times of a forward and backward pass of a batch.
        deployed: title of a backend -> times of one image in it; no times where it was refused.
        refused: title of a backend that takes no network with the block -> why.
    """

    name: str
    params: int
    gflops: float
    memory: float = 0.0
    forward: PairedTimes = field(default_factory=PairedTimes)
    training: PairedTimes = field(default_factory=PairedTimes)
    deployed: dict[str, PairedTimes] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def measure_block_costs(names: Sequence[str], options: CostOptions) -> tuple[Cost, list[BlockCost]]:
    """Measure blocks.

    Args:
        names: registered names, or `package.module:Class`.
        options: how to measure.

    Returns:
        The cost of the plain network, and the cost of each block in the order of `names`.

    Raises:
        UserError: a block, site or device does not exist.
    """
    bench = _Bench(names, options)
    bench.warm_up()
    shuffle = random.Random(0)
    total = options.rounds * len(names)
    with progress_bar(desc="measuring", total=total, unit="block", leave=True) as bar:
        for index in range(options.rounds):
            for cost in shuffle.sample(bench.costs, len(bench.costs)):
                bench.time_pair(cost, plain_first=index % 2 == 1)
                bar.update()
    return bench.plain_cost, bench.costs


class _Bench:
    """One network whose attention is swapped."""

    def __init__(self, names: Sequence[str], options: CostOptions) -> None:
        torch.manual_seed(0)
        self.options = options
        self.device = pick_device(options.device)
        self.precision = pick_precision(options.precision, self.device)
        self.network = YOLOv4Tiny(NUM_CLASSES)
        self.plain = self.network.attention  # empty
        self.blocks = {name: _build_blocks(name, options.sites) for name in names}
        self.plain_cost = measure_cost(self.network, options.size)
        shapes = site_shapes(self.network.eval(), options.size)
        memory = _Memory(self.network, options.size, DTYPES.get(self.precision, torch.float32))
        self.costs = []
        for name, blocks in self.blocks.items():
            added = measure_blocks(blocks, shapes)
            self.costs.append(BlockCost(name, added.params, added.gflops, memory.added(blocks)))
        for module in (self.network, *self.blocks.values()):
            lay_channels_last(module.to(self.device))
        self.image = self._random_images(1)
        self.batch = self._random_images(options.batch)

    def _random_images(self, count: int) -> torch.Tensor:
        images = torch.rand(count, 3, *self.options.size, device=self.device)
        return images.to(memory_format=torch.channels_last)

    def warm_up(self) -> None:
        """Run every block once, untimed, so that memory is allocated and kernels are chosen."""
        for blocks in self.blocks.values():
            self._forward(blocks)
            self._training(blocks)

    def time_pair(self, cost: BlockCost, plain_first: bool) -> None:
        """Add a pair of times to a block's cost, for a forward pass and for a training step."""
        blocks = self.blocks[cost.name]
        for run, times in ((self._forward, cost.forward), (self._training, cost.training)):
            times.add(partial(run, blocks), partial(run, self.plain), plain_first)

    def _forward(self, blocks: nn.ModuleDict) -> float:
        self.network.attention = blocks
        self.network.eval()
        with torch.inference_mode(), autocast(self.precision, self.device):
            return short_milliseconds(lambda: self.network(self.image), self.device)

    def _training(self, blocks: nn.ModuleDict) -> float:
        self.network.attention = blocks
        self.network.train()

        def step() -> None:
            with autocast(self.precision, self.device):
                maps = self.network(self.batch)
            torch.stack([m.float().square().mean() for m in maps]).sum().backward()

        elapsed = milliseconds(step, device=self.device)
        self.network.zero_grad(set_to_none=True)
        return elapsed


def short_milliseconds(call: Callable[[], object], device: torch.device) -> float:
    """Time a call as short as a forward pass: the median of a few, after an untimed one."""
    call()  # refills the caches after the previous run
    times = [milliseconds(call, device=device) for _ in range(FORWARD_REPEATS)]
    return float(np.median(times))


class _Memory:
    """Counts what a training step keeps, without computing anything: the tensors have no values."""

    def __init__(self, network: YOLOv4Tiny, size: tuple[int, int], dtype: torch.dtype) -> None:
        self.network = deepcopy(network).train().to("meta", dtype)
        # two images: on maps of one cell, batch normalization needs them
        self.images = torch.empty(2, 3, *size, dtype=dtype, device="meta")
        self.plain = saved_bytes(self.network, self.images)

    def added(self, blocks: nn.ModuleDict) -> float:
        """10^6 bytes per image that attention adds."""
        self.network.attention = deepcopy(blocks).train().to("meta", self.images.dtype)
        return (saved_bytes(self.network, self.images) - self.plain) / len(self.images) / 1e6


def _build_blocks(name: str, sites: Sequence[str]) -> nn.ModuleDict:
    for site in sites:
        if site not in SITES:
            raise UserError(f"--at {site}: no such site{nearest(site, SITES)}")
    return nn.ModuleDict({site: attention.build(name, SITES[site]) for site in sites})


def cost_page(plain: Cost, costs: Sequence[BlockCost], options: CostOptions, command: str) -> str:
    """Return a Markdown page: how it was measured, and the table, cheapest training first."""
    device = pick_device(options.device)
    precision = pick_precision(options.precision, device)
    height, width = options.size
    backends = list(costs[0].deployed)
    head = [
        "# What the attention blocks cost",
        "",
        f"Each block at {', '.join(options.sites)}, with its default options, compared with "
        f"YOLOv4-tiny without attention (phi 0, {NUM_CLASSES} classes) at {width}x{height}.",
        "",
        f"    {command}",
        "",
        f"- Machine: {describe_device(device)}; PyTorch {torch.__version__.split('+')[0]}, "
        f"{precision}, channels_last.",
        "- Forward: batch 1, evaluation. Training: forward and backward pass of a batch of "
        f"{options.batch}, without loss and optimizer.",
        "- Memory: what a training step keeps per image for the backward pass, 10^6 bytes.",
        f"- Milliseconds are medians of {options.rounds} rounds in which the blocks are "
        "interleaved. "
        "The percentages compare each run with the plain network right before or after it: "
        "median (quartiles).",
        "- GFLOP: convolutions, matrix products and attention, two per multiply-add. Element-wise "
        "operations, most of what the small gates do, take time but are not counted.",
    ]
    if backends:
        head.append(
            "- Exported networks: one image on the CPU, from the pixels to boxes and scores; "
            f"threads: {torch.get_num_threads()}. Blocks are timed one after the other, each "
            "beside the plain network: compare percentages; milliseconds drift with the machine."
        )
    titles = ["memory added", "forward ms", "forward added", "training ms", "training added"]
    for backend in backends:
        titles += [f"{backend} ms", f"{backend} added"]
    table = [
        f"| block | parameters added | GFLOP added | {' | '.join(titles)} |",
        "| --- |" + " ---: |" * (2 + len(titles)),
        f"| none (phi 0) | {plain.params:,} in all | {plain.gflops:.3f} in all | | "
        + " | | ".join(map(_plain_median, _columns(costs)))
        + " | |",
    ]
    ordered = sorted(costs, key=lambda cost: cost.training.added_percent.median)
    rows = [_table_row(cost) for cost in ordered]
    return "\n".join([*head, "", *table, *rows, "", *_refusals(ordered)])


def _refusals(costs: Sequence[BlockCost]) -> list[str]:
    lines = [
        f"- {cost.name} does not run in {title}: {reason}"
        for cost in costs
        for title, reason in cost.refused.items()
    ]
    return [*lines, ""] if lines else []


def _times(cost: BlockCost) -> list[PairedTimes]:
    return [cost.forward, cost.training, *cost.deployed.values()]


def _columns(costs: Sequence[BlockCost]) -> list[tuple[PairedTimes, ...]]:
    return list(zip(*map(_times, costs), strict=True))


def _plain_median(column: Sequence[PairedTimes]) -> str:
    measured = [time for times in column for time in times.plain]
    return f"{np.median(measured):.1f}" if measured else "–"


def _table_row(cost: BlockCost) -> str:
    numbers = f"{cost.params:,} | {cost.gflops:.4f} | {cost.memory:.2f}"
    return f"| {cost.name} | {numbers} | {' | '.join(map(_format_times, _times(cost)))} |"


def _format_times(times: PairedTimes) -> str:
    if not times.block:
        return "– | –"
    added = times.added_percent
    median, low, high = map(_signed, (added.median, added.low, added.high))
    return f"{times.median:.1f} | {median}% ({low} to {high})"


def _signed(value: float) -> str:
    """`+3`, `−1`; never `−0`."""
    return f"{round(value) + 0.0:+.0f}".replace("-", "−")
