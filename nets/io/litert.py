"""LiteRT's `.tflite` files; the metadata are appended as a zip archive, `metadata.json`."""

import json
import zipfile
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from nets.io.exported import (
    INPUT,
    METADATA_FILE,
    OUTPUTS,
    ExportedFile,
    Shapes,
    export_pipeline,
    metadata_texts,
    parse_metadata,
    read_archived,
    runtime_errors,
    silence,
)
from nets.yolo.pipeline import Pipeline
from nets.yolo.yolov4_tiny import YOLOv4Tiny
from utils.core.errors import require_package
from utils.core.schema import Config


class _ChannelsLast(nn.Module):
    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__()
        self.pipeline = pipeline

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return dict(zip(OUTPUTS, self.pipeline(images.permute(0, 3, 1, 2)), strict=True))


def write_litert(
    network: YOLOv4Tiny,
    config: Config,
    names: Sequence[str],
    path: str | Path,
    batch: int | None = None,
) -> None:
    """Convert a network with litert-torch.

    Input `images` `(N, H, W, 3)`, float32, RGB, 0..1; outputs `boxes` `(N, A, 4)`, xyxy in input
    pixels, and `scores` `(N, A, C)`; the names are those of the default signature.

    Args:
        network: on any device.
        config: its configuration.
        names: the class names.
        path: the file to write.
        batch: N; None: 1.

    Raises:
        UserError: litert-torch is not installed, or cannot convert the network.
    """
    with silence():
        litert_torch = require_package("litert_torch", "export to tflite")
        images = torch.rand(batch or 1, *config.input_size, 3)
        with runtime_errors("export to tflite", "litert-torch cannot convert this network"):
            program = torch.export.export(
                _ChannelsLast(export_pipeline(network, config)).eval(), (), {INPUT: images}
            ).module()
            fold_constants(program)
            model = litert_torch.convert(program, sample_kwargs={INPUT: images})
            model.export(str(path))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(METADATA_FILE, json.dumps(metadata_texts(network, config, names)))


def fold_constants(module: fx.GraphModule) -> None:
    """Compute what does not depend on the input, in place.

    Of such operators, litert-torch refuses some, and writes others that LiteRT does not have.

    Args:
        module: what `torch.export` returned.
    """
    values: dict[fx.Node, Any] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            values[node] = attrgetter(node.target)(module)
        elif node.op == "call_function" and values.keys() >= set(node.all_input_nodes):
            args, options = fx.map_arg((node.args, node.kwargs), values.__getitem__)
            values[node] = node.target(*args, **options)
    for number, (node, value) in enumerate(values.items()):
        if node.op == "call_function" and isinstance(value, Tensor):
            module.register_buffer(f"folded{number}", value.contiguous())
            with module.graph.inserting_before(node):
                node.replace_all_uses_with(module.graph.get_attr(f"folded{number}"))
    module.graph.eliminate_dead_code()
    module.recompile()


def read_litert(path: Path) -> ExportedFile:
    """Read the metadata of a file that `write_litert` wrote.

    Raises:
        UserError: not readable, written by another program, or ai-edge-litert is not installed.
    """
    texts = read_archived(path, "TFLite")
    interpreter = require_package("ai_edge_litert.interpreter", str(path))
    with runtime_errors(path, "not readable as TFLite"), silence():
        model = interpreter.Interpreter(str(path))
        signature = model.get_signature_runner()
        inputs, outputs = signature.get_input_details(), signature.get_output_details()
    return parse_metadata(path, texts, _shapes({**inputs, **outputs}))


def _shapes(details: dict[str, dict]) -> Shapes:
    """The shapes of the inputs and outputs by name, with channels before height and width."""
    shapes: Shapes = {name: entry["shape"].tolist() for name, entry in details.items()}
    if INPUT in shapes and len(shapes[INPUT]) == 4:
        images, height, width, channels = shapes[INPUT]
        shapes[INPUT] = [images, channels, height, width]
    return shapes
