"""OpenVINO's files, `.xml` and `.bin`; the metadata lie in the `.xml` as `rt_info`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nets.io.exported import (
    CHECKSUM,
    ExportedFile,
    check_companions,
    parse_metadata,
    runtime_errors,
    work_folder,
)
from nets.io.onnx import read_with_openvino, write_onnx
from nets.yolo.yolov4_tiny import YOLOv4Tiny
from utils.core.errors import require_package
from utils.core.inputs import check_input, hash_files
from utils.core.schema import Config


def write_openvino(
    network: YOLOv4Tiny,
    config: Config,
    names: Sequence[str],
    path: str | Path,
    batch: int | None = None,
    half: bool = False,
) -> None:
    """Convert a network from ONNX, with its metadata; inputs and outputs are those of ONNX.

    Args:
        network: on any device.
        config: its configuration.
        names: the class names.
        path: the `.xml` file to write; the `.bin` is written next to it.
        batch: number of images per call; None: any.
        half: store the weights as float16; what is computed stays float32.

    Raises:
        UserError: onnx, onnxscript or openvino is not installed, or the folder cannot be made.
    """
    openvino = require_package("openvino", "export to OpenVINO")
    with work_folder(Path(path)) as folder:
        source = folder / "model.onnx"
        write_onnx(network, config, names, source, batch=batch)
        model = openvino.convert_model(source)
        save_openvino(model, Path(path), half)


def save_openvino(model: Any, path: Path, half: bool) -> None:
    """Write a model as `.xml` and `.bin`; the first has the checksum of the second."""
    import openvino

    openvino.save_model(model, path, compress_to_fp16=half)
    model.set_rt_info(hash_files([path.with_suffix(".bin")]), ["framework", CHECKSUM])
    openvino.save_model(model, path, compress_to_fp16=half)  # the same .bin


def read_openvino(path: Path) -> ExportedFile:
    """Read the metadata of a file that `write_openvino` wrote.

    Raises:
        UserError: not readable, written by another program, with the `.bin` of another export, or
            openvino is not installed.
    """
    require_package("openvino", str(path))
    check_input(path)
    with runtime_errors(path, "not readable as OpenVINO"):
        texts, shapes = read_with_openvino(str(path))
    check_companions(path, texts, [path.with_suffix(".bin")])
    return parse_metadata(path, texts, shapes)
