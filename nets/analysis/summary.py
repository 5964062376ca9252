"""The network as a table: its layers and attention sites in the order of the forward pass."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nets import attention
from nets.analysis.flops import blank_image, count_gflops, count_parameters, evaluating
from nets.analysis.sites import observe_sites
from nets.yolo.blocks import ConvBNAct
from nets.yolo.yolov4_tiny import YOLOv4Tiny, build_model
from utils.core.schema import Config

HEADER = ("layer", "output", "site", "attention", "parameters", "GFLOP")


@dataclass(frozen=True)
class SummaryRow:
    """A layer, or an attention site.

    Attributes:
        layer: name of the module; "" for a site.
        site: name of the site; "" for a layer.
        block: name of the site's attention block; "" if it has none.
        shape: (channels, height, width) of the output.
        params: number of parameters.
        gflops: 10^9 operations per image.
    """

    layer: str
    site: str
    block: str
    shape: tuple[int, int, int]
    params: int
    gflops: float


def summarize(
    network: YOLOv4Tiny, size: tuple[int, int], block_names: Mapping[str, str] | None = None
) -> list[SummaryRow]:
    """Return the rows of the table, in the order of the forward pass.

    Args:
        network: its modules are restored to their modes (training or evaluation).
        size: (height, width) of the input, pixels.
        block_names: site -> name of its block; None: the names of the classes.
    """
    if block_names is None:
        block_names = {site: type(block).__name__ for site, block in network.attention.items()}
    gflops = count_gflops(network, size)
    rows = []
    for name, shape in _output_shapes(network, size).items():
        site = name.removeprefix("attention.") if name.startswith("attention.") else ""
        has_parameters = not site or site in network.attention
        params = count_parameters(network.get_submodule(name)) if has_parameters else 0
        block = block_names.get(site, "")
        rows.append(
            SummaryRow("" if site else name, site, block, shape, params, gflops.get(name, 0.0))
        )
    return rows


@torch.no_grad()
def _output_shapes(network: YOLOv4Tiny, size: tuple[int, int]) -> dict[str, tuple[int, int, int]]:
    """Return the output (C, H, W) of each layer and, as "attention.<site>", of each site."""
    shapes: dict[str, tuple[int, int, int]] = {}

    def record(name: str, output: Tensor) -> None:
        shapes[name] = (output.shape[1], output.shape[2], output.shape[3])

    def layer_hook(name: str) -> Callable[[nn.Module, tuple, Tensor], None]:
        return lambda module, args, output: record(name, output)

    layers = _layers(network)
    handles = [layer.register_forward_hook(layer_hook(name)) for name, layer in layers]
    observed = observe_sites(network, lambda site, x, y: record(f"attention.{site}", y))
    try:
        with evaluating(network), observed:
            network(blank_image(network, size))
    finally:
        for handle in handles:
            handle.remove()
    return shapes


def _layers(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield name and module of each convolution (with norm and activation) outside attention."""
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if isinstance(child, (ConvBNAct, nn.Conv2d)):
            yield path, child
        elif path != "attention":
            yield from _layers(child, f"{path}.")


def describe_network(config: Config, num_classes: int) -> str:
    """Return the text that `python -m nets` prints.

    Args:
        config: `input_size`, `phi`, `attention` and `model` are read.
        num_classes: number of classes.

    Raises:
        UserError: a site, block or option does not exist.
    """
    specs = attention.parse_phi(config.phi, config.attention.at)
    network = build_model(config, num_classes)
    block_names = {site: attention.describe(spec) for site, spec in specs.items()}
    rows = summarize(network, config.input_size, block_names)
    height, width = config.input_size
    title = f"YOLOv4-tiny, {num_classes} classes, input 3 x {height} x {width}"
    title += " (channels x height x width)"
    if specs:
        title += f", attention.init: {config.attention.init or 'paper'}"
    sites = ", ".join(f"{site} {channels}" for site, channels in network.sites.items())
    return "\n".join(
        [title, "", *format_table(rows), "", f"attention sites and their channels: {sites}"]
    )


def format_table(rows: Sequence[SummaryRow]) -> list[str]:
    """Format the rows as lines of text, with totals."""
    lines = [HEADER, *(_format_row(row) for row in rows), _format_total("total", rows)]
    blocks = [row for row in rows if row.block]
    if blocks:
        lines.append(_format_total("attention only", blocks))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = [_align(line, widths) for line in lines]
    ruler = "-" * (sum(widths) + 2 * len(widths) - 2)
    table.insert(1 + len(rows), ruler)
    table.insert(1, ruler)
    return table


def _format_row(row: SummaryRow) -> tuple[str, ...]:
    shape = " x ".join(map(str, row.shape))
    if row.site and not row.block:
        return "", shape, row.site, "-", "", ""
    return row.layer, shape, row.site, row.block, f"{row.params:,}", f"{row.gflops:.4f}"


def _format_total(title: str, rows: Sequence[SummaryRow]) -> tuple[str, ...]:
    params = sum(row.params for row in rows)
    gflops = sum(row.gflops for row in rows)
    return title, "", "", "", f"{params:,}", f"{gflops:.4f}"


def _align(texts: Sequence[str], widths: Sequence[int]) -> str:
    """A line of columns, the last two (numbers) aligned to the right."""
    columns = [text.ljust(width) for text, width in zip(texts[:-2], widths[:-2], strict=True)]
    columns += [text.rjust(width) for text, width in zip(texts[-2:], widths[-2:], strict=True)]
    return "  ".join(columns).rstrip()
