"""The network as a table: its layers and sites in the order of the forward pass.

python -m nets [--config NAME|PATH] [--classes N] [KEY=VALUE ...]
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nets import attention
from nets.analysis.attend import every_site
from nets.analysis.flops import count_gflops, count_parameters
from nets.yolo.blocks import ConvBNAct
from nets.yolo.yolov4_tiny import SITES, YOLOv4Tiny, build_model
from utils.core.class_names import read_class_names
from utils.core.schema import Config

UNKNOWN_CLASSES = 20  # Pascal VOC's number, where a configuration leaves the classes to its data
HEADER = ("layer", "output", "site", "attention", "parameters", "GFLOP")


@dataclass(frozen=True)
class Row:
    """A layer, or (`site` is set) a place for attention.

    Attributes:
        layer: name of the module. site: name of the site, "" for a layer. block: its attention, "" for none.
        shape: (channels, height, width) of the output. params: trainable parameters. gflops: 10^9 operations a picture.
    """

    layer: str
    site: str
    block: str
    shape: tuple[int, int, int]
    params: int
    gflops: float


def summarize(
    network: YOLOv4Tiny, size: tuple[int, int], blocks: Mapping[str, str] | None = None
) -> list[Row]:
    """The rows, in the order in which an image of (height, width) pixels passes them. Leaves the network as it was.

    Args:
        blocks: site -> what its block is called; none: the class's name.
    """
    named = blocks or {site: type(block).__name__ for site, block in network.attention.items()}
    with every_site(network) as sites:
        places = {f"attention.{site}": site for site in sites}
        shapes = _shapes(network, size, places.keys())
        gflops = count_gflops(network, size)
        return [
            Row(
                "" if name in places else name,
                places.get(name, ""),
                named.get(places.get(name, ""), ""),
                shape,
                count_parameters(network.get_submodule(name)),
                gflops.get(name, 0.0),
            )
            for name, shape in shapes.items()
        ]


@torch.no_grad()
def _shapes(
    network: nn.Module, size: tuple[int, int], places: Iterable[str]
) -> dict[str, tuple[int, int, int]]:
    """Name -> output (C, H, W) of every layer and of the modules `places`, in the order of the forward pass."""
    shapes: dict[str, tuple[int, int, int]] = {}

    def note(name: str) -> Callable[[nn.Module, tuple, Tensor], None]:
        def hook(module: nn.Module, args: tuple, output: Tensor) -> None:
            shapes[name] = (output.shape[1], output.shape[2], output.shape[3])

        return hook

    watched = [*_layers(network), *((place, network.get_submodule(place)) for place in places)]
    handles = [module.register_forward_hook(note(name)) for name, module in watched]
    training = network.training
    try:
        network.eval()(torch.zeros(1, 3, *size, device=next(network.parameters()).device))
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    return shapes


def _layers(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The bricks, each with its name: convolutions with their norm and activation, plain ones; not attention's."""
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if isinstance(child, (ConvBNAct, nn.Conv2d)):
            yield path, child
        elif path != "attention":
            yield from _layers(child, f"{path}.")


def table(rows: list[Row]) -> list[str]:
    """The rows as lines of text, with totals."""
    cells = [
        (
            row.layer,
            " x ".join(map(str, row.shape)),
            row.site,
            row.block or ("-" if row.site else ""),
            *(_costs([row]) if row.layer or row.block else ("", "")),
        )
        for row in rows
    ]
    totals = [("total", "", "", "", *_costs(rows))]
    blocks = [row for row in rows if row.block]
    if blocks:
        totals.append(("of it attention", "", "", "", *_costs(blocks)))
    return _align([HEADER, *cells, *totals], rules=(1, 1 + len(cells)))


def _costs(rows: list[Row]) -> tuple[str, str]:
    return f"{sum(row.params for row in rows):,}", f"{sum(row.gflops for row in rows):.4f}"


def _align(cells: list[tuple[str, ...]], rules: tuple[int, ...]) -> list[str]:
    """Columns of equal width, numbers to the right; a ruler above the rows `rules`."""
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEADER))]
    lines = []
    for index, row in enumerate(cells):
        if index in rules:
            lines.append("-" * (sum(widths) + 2 * len(widths) - 2))
        padded = (
            text.rjust(width) if column >= len(HEADER) - 2 else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(padded).rstrip())
    return lines


def describe_network(config: Config, classes: int | None = None) -> str:
    """What `python -m nets` prints for a configuration.

    Args:
        classes: none: those of the configuration, else 20.

    Raises:
        UserError: a site, block or option that does not exist.
    """
    if classes is None:
        classes = len(read_class_names(config.data.classes) or ()) or UNKNOWN_CLASSES
    specs = attention.parse_phi(config.phi, config.attention.at)
    network = build_model(config, classes)
    rows = summarize(
        network, config.input_size, {site: attention.describe(spec) for site, spec in specs.items()}
    )
    height, width = config.input_size
    start = f", attention.init: {config.attention.init}" if specs else ""
    title = f"YOLOv4-tiny, {classes} classes, input 3 x {height} x {width} (channels x height x width){start}"
    known = ", ".join(f"{site} {channels}" for site, channels in SITES.items())
    return "\n".join(
        [title, "", *table(rows), "", f"sites of attention and their channels: {known}"]
    )
