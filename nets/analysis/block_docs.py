"""The catalog of attention blocks, read from their code: `python -m nets.attention`.

The source is a block's own file. The docstring of its module has a summary, the paper, the formula
and remarks; that of its class a summary and the sections `Args:` and `Traps:`. The numbers are
counted on the meta device, which computes nothing.
"""

import importlib
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from math import log

import torch
from torch import nn

from nets import attention
from nets.analysis.flops import Cost, measure_blocks
from nets.analysis.saved_memory import saved_bytes
from nets.analysis.sites import site_shapes
from nets.attention.start import keeps_input
from nets.yolo.yolov4_tiny import YOLOv4Tiny
from utils.core.schema import AttentionConfig

SITES = tuple(AttentionConfig().at)
SIZE = (416, 416)  # pixels, of the counts
GROWTH = {0.0: "none", 1.0: "N", 1.5: "N^1.5", 2.0: "N^2"}  # by its exponent
CHANNELS, SIDES = 64, (2048, 4096)  # of the maps that the exponent is taken from
HEADER = ("block", "family", "parameters", "GFLOP", "memory", "start", "paper")
SECTION = re.compile(r"(Args|Traps|Raises|Attributes):")
LEGEND = (
    f"Parameters and GFLOP: of the blocks at {', '.join(SITES)}, with their default options, for "
    f"one image of {SIZE[1]}x{SIZE[0]}; two per multiply-add, element-wise operations are not "
    "counted.",
    "Memory: how what a block keeps for the backward pass, beyond its input, grows with the number "
    "of positions N = H * W. Where a fused kernel of PyTorch applies, N^2 becomes N.",
    "Start: what a new block does to its input. identity: returns it; keeps: scales it or adds to "
    "it; erases: little of it is left, so that pretrained weights need attention.init=identity.",
    "Exported to ONNX, every block runs in ONNX Runtime, OpenVINO, OpenCV 4.14 and 5.0; "
    "docs/runtimes.md has all runtimes.",
)


@dataclass(frozen=True)
class Docstring:
    """A docstring, taken apart.

    Attributes:
        text: what comes before the first section.
        args: parameter -> what it is.
        traps: one sentence or more each.
    """

    text: str
    args: Mapping[str, str]
    traps: Sequence[str]


def parse_docstring(text: str) -> Docstring:
    """Take a docstring of Google's style apart."""
    bodies: dict[str, list[str]] = {"": []}
    current = ""
    for line in inspect.cleandoc(text).splitlines():
        header = SECTION.fullmatch(line)
        if header:
            current = header[1]
            bodies[current] = []
        else:
            bodies[current].append(line)
    items = (item.partition(": ") for item in _items(bodies.get("Args", [])))
    return Docstring(
        "\n".join(bodies[""]).strip(),
        {name: meaning for name, _, meaning in items},
        [item.removeprefix("- ") for item in _items(bodies.get("Traps", []))],
    )


def _items(lines: Sequence[str]) -> list[str]:
    """The items of a section, whose further lines are indented more."""
    items: list[str] = []
    for line in lines:
        if line.startswith("     "):
            items[-1] += f" {line.strip()}"
        elif line.strip():
            items.append(line.strip())
    return items


@dataclass(frozen=True)
class BlockFacts:
    """A row of the table.

    Attributes:
        info: name, family and paper.
        cost: of the blocks at the default sites.
        memory: see `LEGEND`.
        start: see `LEGEND`.
    """

    info: attention.BlockInfo
    cost: Cost
    memory: str
    start: str

    @property
    def cells(self) -> tuple[str, ...]:
        """The texts of the row."""
        params, gflops = f"{self.cost.params:,}", f"{self.cost.gflops:.4f}"
        info = self.info
        return info.name, info.family, params, gflops, self.memory, self.start, info.paper


def block_facts(name: str) -> BlockFacts:
    """Count and measure a registered block."""
    info = attention.block_info(name)
    shapes = {site: shape for site, shape in _shapes().items() if site in SITES}
    with torch.device("meta"):
        blocks = {site: attention.build(name, shape[0]).eval() for site, shape in shapes.items()}
        cost = measure_blocks(blocks, shapes)
        memory = _growth(attention.build(name, CHANNELS))
    block = attention.build(name, CHANNELS)
    return BlockFacts(info, cost, memory, _start(block))


@cache
def _shapes() -> dict[str, tuple[int, int, int]]:
    with torch.device("meta"):
        return site_shapes(YOLOv4Tiny(1).eval(), SIZE)


def _start(block: nn.Module) -> str:
    if getattr(block, "identity_at_start", False):
        return "identity"
    return "keeps" if keeps_input(block, CHANNELS) else "erases"


def _growth(block: nn.Module) -> str:
    """How the saved bytes grow with N, on maps so large that smaller terms vanish."""
    small, large = (
        saved_bytes(block, torch.zeros(1, CHANNELS, side, side, requires_grad=True))
        for side in SIDES
    )
    ratio = max(large, 1) / max(small, 1)
    exponent = log(ratio, (SIDES[1] / SIDES[0]) ** 2)
    return GROWTH[min(GROWTH, key=lambda known: abs(known - exponent))]


def format_table(names: Sequence[str]) -> str:
    """Return the blocks as lines of text, with a legend."""
    rows = [HEADER, *(block_facts(name).cells for name in names)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        for number in (2, 3):
            cells[number] = row[number].rjust(widths[number])
        lines.append("  ".join(cells).rstrip())
    return "\n".join([*lines, "", *LEGEND])


def block_section(names: Sequence[str]) -> str:
    """Return Markdown about blocks of one file: paper, formula, options with defaults, traps.

    Args:
        names: registered names, or one `package.module:Class`.

    Raises:
        UserError: there is no such block.
    """
    classes = {name: attention.block_info(name).factory for name in names}
    module = importlib.import_module(classes[names[0]].__module__)
    lines = [f"## {', '.join(names)}", "", inspect.cleandoc(module.__doc__ or "")]
    for name, factory in classes.items():
        if len(names) > 1:
            lines += ["", f"### {name}"]
        lines += ["", _describe_class(factory)]
    return "\n".join(lines)


def _describe_class(factory: Callable[..., nn.Module]) -> str:
    docstring = parse_docstring(factory.__doc__ or "")
    _, *options = inspect.signature(factory).parameters.values()
    lines = [docstring.text, ""]
    if options:
        lines += ["| option | default | meaning |", "| --- | --- | --- |"]
    for option in options:
        meaning = docstring.args.get(option.name, "")
        lines.append(f"| `{option.name}` | {_as_yaml(option.default)} | {meaning} |")
    if docstring.traps:
        lines += ["", "Traps:", "", *(f"- {trap}" for trap in docstring.traps)]
    return "\n".join(lines).strip()


def _as_yaml(value: object) -> str:
    """A default as it is written in a configuration."""
    if value is inspect.Parameter.empty:
        return "required"
    return json.dumps(value).strip('"')


def all_sections() -> str:
    """Return the sections of all blocks, by file."""
    files = {name: attention.block_info(name).factory.__module__ for name in attention.names()}
    together = groupby(sorted(files, key=lambda name: (files[name], name)), files.__getitem__)
    return "\n\n".join(block_section(list(names)) for _, names in together)


def catalog_page(command: str) -> str:
    """Return a Markdown page about all blocks.

    Args:
        command: that printed the page.
    """
    lines = [
        "# The attention blocks",
        "",
        f"    {command}",
        "",
        *(f"- {line}" for line in LEGEND),
        "",
        "[public_copies.md](public_copies.md) lists what common copies of these blocks compute "
        "instead.",
        "",
        f"| {' | '.join(HEADER)} |",
        "| --- | --- | ---: | ---: | --- | --- | --- |",
        *(table_row(name) for name in attention.names()),
        "",
        all_sections(),
        "",
    ]
    return "\n".join(lines)


def table_row(name: str) -> str:
    """Return a block's row of the page's table."""
    return f"| {' | '.join(block_facts(name).cells)} |"
