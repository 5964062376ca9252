"""TorchScript files; the metadata lie in the file as `extra/metadata.json`."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from nets.io.exported import (
    METADATA_FILE,
    ExportedFile,
    export_pipeline,
    metadata_texts,
    parse_metadata,
    read_archived,
    silence,
)
from nets.yolo.yolov4_tiny import YOLOv4Tiny
from utils.core.outputs import write_file
from utils.core.schema import Config


def trace(network: YOLOv4Tiny, config: Config) -> torch.jit.ScriptModule:
    """Trace a network and its box coder with one image of `config.input_size`.

    Returns:
        A module that takes images `(N, 3, H, W)`, float32, RGB, 0..1, and returns boxes and scores.
    """
    with silence():
        return torch.jit.trace(
            export_pipeline(network, config),
            torch.rand(1, 3, *config.input_size),
            check_trace=False,
        )


def follow_images(module: torch.jit.ScriptModule) -> None:
    """Let what a traced module creates lie where its images are.

    A trace holds the device that `torch.arange` and the like were called with as a constant.
    """
    graph: Any = module.graph  # PyTorch's stubs lack some of its methods
    torch._C._jit_pass_inline(graph)  # so that the images are at hand everywhere
    _, images = graph.inputs()
    device = graph.create("prim::device", [images])
    device.output().setType(torch._C.DeviceObjType.get())
    graph.prependNode(device)
    for node in graph.findAllNodes("prim::Constant"):
        if node.output().type().kind() == "DeviceObjType":
            node.output().replaceAllUsesWith(device.output())


def write_torchscript(
    network: YOLOv4Tiny, config: Config, names: Sequence[str], path: str | Path
) -> None:
    """Write a network as TorchScript, for any device: `trace` with its metadata.

    Args:
        network: on any device.
        config: its configuration.
        names: the class names.
        path: the file to write.

    Raises:
        UserError: the file cannot be written.
    """
    texts = json.dumps(metadata_texts(network, config, names))
    buffer = io.BytesIO()
    module = trace(network, config)
    follow_images(module)
    with silence():
        torch.jit.save(module, buffer, _extra_files={METADATA_FILE: texts})
    write_file(path, buffer.getvalue())


def read_torchscript(path: Path) -> ExportedFile:
    """Read the metadata of a file that `write_torchscript` wrote; no code in it is run.

    Raises:
        UserError: not readable, or written by another program.
    """
    return parse_metadata(path, read_archived(path, "TorchScript"), None)
