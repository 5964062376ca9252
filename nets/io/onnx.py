"""Writing ONNX files with all the metadata needed to use them, and reading it back."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from nets.io.exported import (
    CHECKSUM,
    INPUT,
    METADATA_KEYS,
    OUTPUTS,
    PRECISION,
    ExportedFile,
    Shapes,
    export_pipeline,
    metadata_texts,
    parse_metadata,
    runtime_errors,
)
from nets.io.onnx_trace import trace, trace_formerly
from nets.yolo.yolov4_tiny import YOLOv4Tiny
from utils.core.errors import UserError, require_package
from utils.core.inputs import check_input
from utils.core.outputs import write_file
from utils.core.schema import Config

LOWEST_OPSET = 12
# of PyTorch's exporter; its conversions to lower opsets fail, but its former exporter writes them
LOWEST_DEFAULT_OPSET = 18
RUNTIMES = ("onnxruntime", "openvino")


def write_onnx(
    network: YOLOv4Tiny,
    config: Config,
    names: Sequence[str],
    path: str | Path,
    opset: int | None = None,
    batch: int | None = None,
    half: bool = False,
    nms: bool = False,
) -> None:
    """Write a network as ONNX.

    Input `images` `(N, 3, H, W)`, float32, RGB, 0..1; H and W are `config.input_size`.
    Outputs `boxes` `(N, A, 4)`, xyxy in input pixels, and `scores` `(N, A, C)`, objectness times
    class probability. Batch normalization is folded. The file's `metadata_props` hold `anchors`
    (JSON), `config` (YAML) and what `client_metadata` returns.

    Args:
        network: on any device.
        config: its configuration.
        names: the class names.
        path: the file to write.
        opset: ONNX opset version; None: the default of PyTorch's exporter.
        batch: N; None: any.
        half: store the weights of convolutions as float16; what is computed stays float32.
        nms: end with class-wise NMS by the limits of `config.predict`, without box voting. The only
            output is then `detections` `(N, predict.max_detections, 6)`: x1, y1, x2, y2, score and
            class, the best first; the rest of the rows have score 0.

    Raises:
        UserError: onnx or onnxscript is not installed, the exporter does not support the opset, or
            the file cannot be written.
    """
    onnx = require_package("onnx", "export to ONNX")
    require_package("onnxscript", "export to ONNX")
    from nets.io.onnx_changes import append_nms, halve_weights

    highest = onnx.defs.onnx_opset_version()
    if opset is not None and not LOWEST_OPSET <= opset <= highest:
        raise UserError(f"--opset {opset}: expected {LOWEST_OPSET} to {highest}")
    # with one image, the exporter would fix the batch at 1
    images = torch.rand(batch or 2, 3, *config.input_size)
    pipeline = export_pipeline(network, config)
    if opset is not None and opset < LOWEST_DEFAULT_OPSET:
        model = trace_formerly(pipeline, images, [INPUT], OUTPUTS, opset, any_batch=batch is None)
    else:
        model = trace(pipeline, images, [INPUT], OUTPUTS, opset, any_batch=batch is None)
    _check_opset(model, opset)
    if half:
        halve_weights(model)
    if nms:
        append_nms(model, config, len(names))
    onnx.helper.set_model_props(model, metadata_texts(network, config, names, nms))
    write_file(path, model.SerializeToString())


def _check_opset(model: Any, opset: int | None) -> None:
    """Refuse a model that the exporter left at another opset, of which it only warns."""
    written = next(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    if opset not in (None, written):
        raise UserError(
            f"--opset {opset}: PyTorch {torch.__version__} cannot convert this network to it, only "
            f"to {written}"
        )


def find_runtime(path: str | Path) -> str:
    """Return the backend that runs ONNX files on this machine.

    Args:
        path: the file to run, for the error message.

    Raises:
        UserError: none is installed.
    """
    for name in RUNTIMES:
        if importlib.util.find_spec(name):
            return name
    raise UserError(f"{path}: no ONNX runtime is installed: pip install onnxruntime")


def read_onnx(path: str | Path) -> ExportedFile:
    """Read the metadata of a file that `write_onnx` wrote, with whichever runtime is installed.

    Raises:
        UserError: not readable, written by another program, inputs or outputs that disagree with
            the metadata, or no runtime is installed.
    """
    read = read_with_openvino
    if find_runtime(path) == "onnxruntime":
        read = _read_with_onnxruntime
    check_input(path)
    with runtime_errors(path, "not readable as ONNX"):
        texts, shapes = read(str(path))
    return parse_metadata(Path(path), texts, shapes)


def _read_with_onnxruntime(path: str) -> tuple[dict[str, str], Shapes]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"], enable_fallback=0
    )
    shapes: Shapes = {}
    for item in (*session.get_inputs(), *session.get_outputs()):
        shapes[item.name] = [size if isinstance(size, int) else None for size in item.shape]
    return session.get_modelmeta().custom_metadata_map, shapes


def read_with_openvino(path: str) -> tuple[dict[str, str], Shapes]:
    """Return the metadata of an ONNX or OpenVINO file, and the shapes of its inputs and outputs."""
    import openvino

    model = openvino.Core().read_model(path)
    texts = {}
    for key in (*METADATA_KEYS, PRECISION, CHECKSUM):
        key_path = ["framework", key]
        if model.has_rt_info(key_path):
            texts[key] = model.get_rt_info(key_path).astype(str)
    shapes: Shapes = {}
    for item in (*model.inputs, *model.outputs):
        sizes = item.get_partial_shape()
        shapes[item.any_name] = [size.get_length() if size.is_static else None for size in sizes]
    return texts, shapes
