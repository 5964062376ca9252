"""Writing ONNX files with all the metadata needed to use them, and reading it back."""

import copy
import importlib.util
import io
import json
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from nets.io.checkpoints import Anchors
from nets.io.client_metadata import client_metadata
from nets.yolo.box_coder import map_sizes
from nets.yolo.pipeline import Pipeline
from nets.yolo.yolov4_tiny import YOLOv4Tiny, check_anchor_count
from utils.core.class_names import checked_names
from utils.core.config import dump_config, restore_config
from utils.core.errors import UserError, require_package, shorten
from utils.core.files import check_input, write_file
from utils.core.schema import Config
from utils.core.validation import validate, validate_json
from utils.core.yaml_text import parse_yaml

LOWEST_OPSET = 18  # of PyTorch's exporter; its conversions to lower opsets fail
INPUT = "images"
OUTPUTS = ("boxes", "scores")
RUNTIMES = ("onnxruntime", "openvino")
ORT_CODE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
METADATA_KEYS = ("config", "names", "anchors")

Shapes = dict[str, list[int | None]]  # of the inputs and outputs by name; None: any size


@dataclass(frozen=True)
class OnnxMetadata:
    """The metadata of an ONNX file of this project.

    Attributes:
        config: the configuration of the experiment.
        names: the class names.
        anchors: (width, height) in input pixels, three per head.
    """

    config: Config
    names: tuple[str, ...]
    anchors: list[list[float]]


def write_onnx(
    network: YOLOv4Tiny,
    config: Config,
    names: Sequence[str],
    path: str | Path,
    opset: int | None = None,
) -> None:
    """Write a network as ONNX without NMS.

    Input `images` `(N, 3, H, W)`, float32, RGB, 0..1; N is dynamic, H and W are
    `config.input_size`.
    Outputs `boxes` `(N, A, 4)`, xyxy in input pixels, and `scores` `(N, A, C)`, objectness times
    class probability. Batch normalization is folded. The file's `metadata_props` hold `anchors`
    (JSON), `config` (YAML) and what `client_metadata` returns.

    Args:
        network: on any device.
        config: its configuration.
        names: the class names.
        path: the file to write.
        opset: ONNX opset version; None: the default of PyTorch's exporter.

    Raises:
        UserError: onnx or onnxscript is not installed, the exporter does not support the opset, or
            the file cannot be written.
    """
    onnx = require_package("onnx", "export to ONNX")
    require_package("onnxscript", "export to ONNX")
    highest = onnx.defs.onnx_opset_version()
    if opset is not None and not LOWEST_OPSET <= opset <= highest:
        raise UserError(f"--opset {opset}: expected {LOWEST_OPSET} to {highest}")
    model = _trace(network, config, opset)
    _check_opset(model, opset)
    properties = {
        **client_metadata(config, names),
        "anchors": json.dumps(network.coder.anchors.tolist()),
        "config": dump_config(config),
    }
    onnx.helper.set_model_props(model, properties)
    write_file(path, model.SerializeToString())


def _trace(network: YOLOv4Tiny, config: Config, opset: int | None) -> Any:
    """Return the `onnx.ModelProto` from PyTorch's exporter."""
    pipeline = Pipeline(copy.deepcopy(network).cpu().float(), config.input_size).eval()
    images = torch.rand(2, 3, *config.input_size)  # with one, the exporter fixes the batch at 1
    # PyTorch 2.7 needs a bound: without one it forbids a single value, 2**63 - 1
    batch = torch.export.Dim("batch", max=2**31 - 1)
    with _silence():
        try:
            program = torch.onnx.export(
                pipeline,
                (images,),
                dynamo=True,
                verbose=False,
                opset_version=opset,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                dynamic_shapes=({0: batch},),
            )
        except Exception as error:
            if opset is None:
                raise
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"--opset {opset}: refused by PyTorch {torch.__version__}: {reason}"
            ) from None
    assert program is not None
    return program.model_proto


@contextmanager
def _silence() -> Iterator[None]:
    """Keep what PyTorch tells of its internals from the user: warnings, logs and prints."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(before)


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


def read_onnx(path: str | Path) -> OnnxMetadata:
    """Read the metadata of a file that `write_onnx` wrote, with whichever runtime is installed.

    Raises:
        UserError: not readable, written by another program, inputs or outputs that disagree with
            the metadata, or no runtime is installed.
    """
    read = _read_with_openvino
    if find_runtime(path) == "onnxruntime":
        read = _read_with_onnxruntime
    check_input(path)
    with runtime_errors(path, "not readable as ONNX"):
        texts, shapes = read(str(path))
    for key in METADATA_KEYS:
        if key not in texts:
            raise UserError(
                f"{path}: no {key} in its metadata; expected an ONNX file that export.py wrote"
            )
    values = validate(
        dict[str, Any], parse_yaml(texts["config"], f"{path}: config"), f"{path}: config"
    )
    config = restore_config(values, f"{path}: config")
    names = validate_json(list[str], texts["names"], f"{path}: names")
    anchors = validate_json(Anchors, texts["anchors"], f"{path}: anchors")
    check_anchor_count(anchors, config.model, f"{path}: anchors")
    _check_shapes(path, shapes, config, len(names))
    return OnnxMetadata(config, checked_names(names, f"{path}: names"), anchors)


@contextmanager
def runtime_errors(path: str | Path, problem: str) -> Iterator[None]:
    """Report in one line what a runtime raises about a file: each has exceptions of its own.

    Args:
        path: the file.
        problem: what cannot be done with it.
    """
    try:
        yield
    except Exception as error:
        lines = str(error).splitlines() or [type(error).__name__]
        reason = ORT_CODE.sub("", lines[0])
        raise UserError(f"{path}: {problem}: {shorten(reason, 200)}") from None


def _check_shapes(path: str | Path, shapes: Shapes, config: Config, num_classes: int) -> None:
    """Compare the graph's inputs and outputs with the metadata, except for the batch size."""
    maps = map_sizes(config.input_size, config.model.heads)
    predictions = sum(3 * height * width for height, width in maps)
    expected = {
        INPUT: (3, *config.input_size),
        OUTPUTS[0]: (predictions, 4),
        OUTPUTS[1]: (predictions, num_classes),
    }
    if shapes.keys() != expected.keys():
        found = shorten(", ".join(shapes))
        raise UserError(f"{path}: inputs and outputs {found}; expected {', '.join(expected)}")
    for name, wanted in expected.items():
        sizes = shapes[name][1:]
        pairs = list(zip_longest(sizes, wanted, fillvalue=0))
        if any(size not in (None, want) for size, want in pairs):
            raise UserError(
                f"{path}: {name} has shape (N, {', '.join(map(str, sizes))}), but its metadata ask "
                f"for (N, {', '.join(map(str, wanted))})"
            )


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


def _read_with_openvino(path: str) -> tuple[dict[str, str], Shapes]:
    import openvino

    model = openvino.Core().read_model(path)
    texts = {}
    for key in METADATA_KEYS:
        key_path = ["framework", key]
        if model.has_rt_info(key_path):
            texts[key] = model.get_rt_info(key_path).astype(str)
    shapes: Shapes = {}
    for item in (*model.inputs, *model.outputs):
        sizes = item.get_partial_shape()
        shapes[item.any_name] = [size.get_length() if size.is_static else None for size in sizes]
    return texts, shapes
