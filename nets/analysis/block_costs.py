"""What each attention block costs: parameters, operations and milliseconds.

Times are medians over rounds. A round times every block once, in a new order, and the network
without attention right before or after each block, so that a change in the machine's speed affects
both; what a block adds is the median over these pairs. All blocks share one network; only the
attention is swapped.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from nets import attention
from nets.analysis.flops import Cost, measure_blocks, measure_cost
from nets.analysis.sites import site_shapes
from nets.yolo.yolov4_tiny import SITES, YOLOv4Tiny
from utils.core.devices import autocast, pick_device, pick_precision
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
        forward: times of a forward pass of one image.
        training: times of a forward and backward pass of a batch.
    """

    name: str
    params: int
    gflops: float
    forward: PairedTimes = field(default_factory=PairedTimes)
    training: PairedTimes = field(default_factory=PairedTimes)


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
        self.costs = [_added_cost(name, blocks, shapes) for name, blocks in self.blocks.items()]
        for module in (self.network, *self.blocks.values()):
            module.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
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
            if plain_first:
                times.plain.append(run(self.plain))
                times.block.append(run(blocks))
            else:
                times.block.append(run(blocks))
                times.plain.append(run(self.plain))

    def _forward(self, blocks: nn.ModuleDict) -> float:
        self.network.attention = blocks
        self.network.eval()
        with torch.inference_mode(), autocast(self.precision, self.device):
            self.network(self.image)  # untimed: refills the caches after the previous run
            times = [
                milliseconds(lambda: self.network(self.image), device=self.device)
                for _ in range(FORWARD_REPEATS)
            ]
        return float(np.median(times))

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


def _added_cost(
    name: str, blocks: nn.ModuleDict, shapes: Mapping[str, tuple[int, int, int]]
) -> BlockCost:
    cost = measure_blocks(blocks, shapes)
    return BlockCost(name, cost.params, cost.gflops)


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
    forward = np.median([time for cost in costs for time in cost.forward.plain])
    training = np.median([time for cost in costs for time in cost.training.plain])
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
        f"- Milliseconds are medians of {options.rounds} rounds in which the blocks are "
        "interleaved. "
        "The percentages compare each run with the plain network right before or after it: "
        "median (quartiles).",
        "- GFLOP: convolutions, matrix products and attention, two per multiply-add. Element-wise "
        "operations, most of what the small gates do, take time but are not counted.",
        "",
        "| block | parameters added | GFLOP added | forward ms | forward added | training ms "
        "| training added |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        f"| none (phi 0) | {plain.params:,} in all | {plain.gflops:.3f} in all "
        f"| {forward:.1f} | | {training:.1f} | |",
    ]
    ordered = sorted(costs, key=lambda cost: cost.training.added_percent.median)
    return "\n".join([*head, *(_table_row(cost) for cost in ordered), ""])


def _table_row(cost: BlockCost) -> str:
    forward, training = _format_times(cost.forward), _format_times(cost.training)
    return f"| {cost.name} | {cost.params:,} | {cost.gflops:.4f} | {forward} | {training} |"


def _format_times(times: PairedTimes) -> str:
    added = times.added_percent
    return f"{times.median:.1f} | {added.median:+.0f}% ({added.low:+.0f} to {added.high:+.0f})"
