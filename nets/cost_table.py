"""What each attention block costs: parameters, operations and milliseconds beside the network without attention.

Examples:
  python -m nets.cost_table --out docs/attention_cost.md      every registered block: the table of the documentation
  python -m nets.cost_table se cbam eca --rounds 30
  python -m nets.cost_table my_package.blocks:MyBlock --at feat1 --device cuda
  python -m nets.cost_table --quick                           seconds, to see that it works; its times mean nothing

Times are medians over rounds. A round times every block once, in a new order, and right before or after each block the
plain network, so that a machine that slows down or speeds up meanwhile does so for both; what a block adds is the
median over these pairs. The blocks share one network: only the attention is exchanged.
"""

import argparse
import random
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from nets import attention
from nets.analysis.flops import Cost, measure_cost
from nets.yolo.yolov4_tiny import SITES, YOLOv4Tiny
from utils.core.cli import run_command
from utils.core.devices import autocast, pick_device, pick_precision
from utils.core.environment import describe_device
from utils.core.errors import UserError, nearest
from utils.core.progress import progress_bar
from utils.core.schema import AttentionConfig
from utils.core.timing import Stat, milliseconds

CLASSES = 20
FORWARDS = 3  # forward passes of a round, of which the median counts: they are short
DEFAULT_SITES = tuple(AttentionConfig().at)


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        at: sites. size: (height, width) of the input. rounds: repetitions. batch: images of a forward and backward
            pass (a forward pass has one). device, precision: as in the configuration.
    """

    at: tuple[str, ...] = DEFAULT_SITES
    size: tuple[int, int] = (416, 416)
    rounds: int = 20
    batch: int = 4
    device: str = "auto"
    precision: str = "auto"


@dataclass
class Times:
    """Milliseconds, one pair a round: with the block, and of the plain network right beside it."""

    block: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return float(np.median(self.block))

    @property
    def added(self) -> tuple[float, float, float]:
        """Median, lower and upper quartile of what the block adds to the plain network, in percent."""
        shares = Stat.of(100 * (np.array(self.block) / np.array(self.plain) - 1))
        return shares.median, shares.low, shares.high


@dataclass(frozen=True)
class Line:
    """A block's row: what it adds to the plain network, and its times."""

    name: str
    params: int
    gflops: float
    forward: Times = field(default_factory=Times)
    training: Times = field(default_factory=Times)


def measure(names: Sequence[str], settings: Settings) -> tuple[Cost, list[Line]]:
    """The cost of the plain network, and a row for each block, in the order given.

    Raises:
        UserError: an unknown block, site or device.
    """
    bench = Bench(names, settings)
    bench.warm_up()
    draw = random.Random(0)
    steps = settings.rounds * len(names)
    with progress_bar(desc="measuring", total=steps, unit="block", leave=True) as bar:
        for index in range(settings.rounds):
            for line in draw.sample(bench.lines, len(bench.lines)):
                bench.time_beside_plain(line, plain_first=bool(index % 2))
                bar.update()
    return bench.plain, bench.lines


class Bench:
    """One network whose attention is exchanged."""

    def __init__(self, names: Sequence[str], settings: Settings) -> None:
        torch.manual_seed(0)
        self.settings = settings
        self.device = pick_device(settings.device)
        self.precision = pick_precision(settings.precision, self.device)
        self.network = YOLOv4Tiny(CLASSES)
        self.none = self.network.attention
        self.blocks: Mapping[str, nn.ModuleDict] = {name: self._placed(name) for name in names}
        self.plain = measure_cost(self.network, settings.size)
        self.lines = [self._line(name) for name in names]
        for module in (self.network, *self.blocks.values()):
            module.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.picture, self.pictures = (
            torch.rand(count, 3, *settings.size, device=self.device).to(
                memory_format=torch.channels_last
            )
            for count in (1, settings.batch)
        )

    def _placed(self, name: str) -> nn.ModuleDict:
        unknown = next((site for site in self.settings.at if site not in SITES), None)
        if unknown is not None:
            raise UserError(f"--at {unknown}: no such site{nearest(unknown, SITES)}")
        return nn.ModuleDict(
            {site: attention.build(name, SITES[site]) for site in self.settings.at}
        )

    def _line(self, name: str) -> Line:
        self.network.attention = self.blocks[name]
        cost = measure_cost(self.network, self.settings.size)
        self.network.attention = self.none
        return Line(name, cost.params - self.plain.params, cost.gflops - self.plain.gflops)

    def warm_up(self) -> None:
        """One untimed round: memory, kernels."""
        for name in self.blocks:
            self._forward(name)
            self._training(name)

    def time_beside_plain(self, line: Line, plain_first: bool) -> None:
        """Add one pair of times to a row, forward and forward with backward."""
        for run, times in ((self._forward, line.forward), (self._training, line.training)):
            pair: list[tuple[str | None, list[float]]] = [
                (None, times.plain),
                (line.name, times.block),
            ]
            for name, kept in pair if plain_first else pair[::-1]:
                kept.append(run(name))

    def _forward(self, name: str | None) -> float:
        self.network.attention = self.none if name is None else self.blocks[name]
        self.network.eval()
        with torch.inference_mode(), autocast(self.precision, self.device):
            self.network(self.picture)  # untimed: what ran before has emptied the caches
            times = [
                milliseconds(lambda: self.network(self.picture), device=self.device)
                for _ in range(FORWARDS)
            ]
        return float(np.median(times))

    def _training(self, name: str | None) -> float:
        self.network.attention = self.none if name is None else self.blocks[name]
        self.network.train()

        def step() -> None:
            with autocast(self.precision, self.device):
                maps = self.network(self.pictures)
            torch.stack([m.float().square().mean() for m in maps]).sum().backward()

        taken = milliseconds(step, device=self.device)
        self.network.zero_grad(set_to_none=True)
        return taken


def markdown(plain: Cost, lines: Sequence[Line], settings: Settings, command: str) -> str:
    """The page: how it was measured, and the table, cheapest training first."""
    device = pick_device(settings.device)
    precision = pick_precision(settings.precision, device)
    height, width = settings.size
    forward = np.median([value for line in lines for value in line.forward.plain])
    training = np.median([value for line in lines for value in line.training.plain])
    head = [
        "# What the attention blocks cost",
        "",
        f"Each block at {', '.join(settings.at)}, with its default options, beside YOLOv4-tiny without attention "
        f"(phi 0, {CLASSES} classes) at {width}x{height}.",
        "",
        f"    {command}",
        "",
        f"- Machine: {describe_device(device)}; PyTorch {torch.__version__.split('+')[0]}, {precision}, channels_last.",
        f"- Forward: batch 1, evaluation. Training: forward and backward pass of a batch of {settings.batch}, without "
        "loss and optimizer.",
        f"- Milliseconds are medians of {settings.rounds} rounds in which the blocks take turns. The percentages "
        "compare each run with one of the plain network right beside it: median (quartiles).",
        "- GFLOP: convolutions, matrix products and attention, two a multiply-add; element-wise work, most of what the "
        "small gates do, takes time and is not counted.",
        "",
        "| block | parameters added | GFLOP added | forward ms | forward added | training ms | training added |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        f"| none (phi 0) | {plain.params:,} in all | {plain.gflops:.3f} in all | {forward:.1f} | | {training:.1f} | |",
    ]
    ordered = sorted(lines, key=lambda line: line.training.added[0])
    return "\n".join([*head, *(_row(line) for line in ordered), ""])


def _row(line: Line) -> str:
    forward, training = (
        f"{times.median:.1f} | {times.added[0]:+.0f}% ({times.added[1]:+.0f} to {times.added[2]:+.0f})"
        for times in (line.forward, line.training)
    )
    return f"| {line.name} | {line.params:,} | {line.gflops:.4f} | {forward} | {training} |"


def _parse() -> tuple[list[str], Settings, str | None]:
    parser = argparse.ArgumentParser(
        prog="python -m nets.cost_table",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole = Settings()
    parser.add_argument(
        "blocks",
        nargs="*",
        help="registered names or package.module:Class; default: all registered",
    )
    parser.add_argument(
        "--at", nargs="+", metavar="SITE", default=list(whole.at), help="default: %(default)s"
    )
    parser.add_argument(
        "--size",
        type=int,
        default=whole.size[0],
        help="side of the input, pixels; default: %(default)s",
    )
    parser.add_argument("--rounds", type=int, default=whole.rounds, help="default: %(default)s")
    parser.add_argument(
        "--batch",
        type=int,
        default=whole.batch,
        help="images of a training step; default: %(default)s",
    )
    parser.add_argument(
        "--device", default=whole.device, help="auto, cpu, cuda, cuda:1, mps; default: %(default)s"
    )
    parser.add_argument(
        "--precision", choices=("auto", "fp32", "bf16", "fp16"), default=whole.precision
    )
    parser.add_argument(
        "--threads", type=int, default=0, help="CPU threads; default: PyTorch's choice"
    )
    parser.add_argument("--quick", action="store_true", help="two rounds of one small image")
    parser.add_argument(
        "--out", metavar="FILE", help="write the Markdown page there; default: print it"
    )
    given = parser.parse_intermixed_args()
    if given.quick:
        given.rounds, given.size, given.batch = 2, 64, 2
    for name in ("rounds", "batch"):
        if getattr(given, name) < 1:
            raise UserError(f"--{name} {getattr(given, name)}: expected at least 1")
    if given.size < 32 or given.size % 32:
        raise UserError(
            f"--size {given.size}: expected a multiple of 32, the stride of the last map"
        )
    if given.size == 32 and given.batch == 1:
        raise UserError(
            "--batch 1: a map of one cell has no statistics to normalize by; expected 2, or --size 64"
        )
    if given.threads > 0:
        torch.set_num_threads(given.threads)
    size = (given.size, given.size)
    settings = Settings(
        tuple(given.at), size, given.rounds, given.batch, given.device, given.precision
    )
    return given.blocks or attention.names(), settings, given.out


def main() -> None:
    """The command line."""
    names, settings, out = _parse()
    plain, lines = measure(names, settings)
    page = markdown(
        plain, lines, settings, f"python -m nets.cost_table {shlex.join(sys.argv[1:])}".strip()
    )
    if out is None:
        print(page)
        return
    try:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        Path(out).write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out {out}: cannot write: {error.strerror}") from None
    print(f"written: {out}")


if __name__ == "__main__":
    run_command(main)
