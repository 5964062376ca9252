"""Reading what an ONNX file of ours says about itself, with whichever runtime is installed."""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

import yaml

from utils.core.config import restore_config
from utils.core.errors import UserError
from utils.core.schema import Config

RUNTIMES = ("onnxruntime", "openvino")
KEYS = ("config", "names", "anchors")


@dataclass(frozen=True)
class OnnxFile:
    """`config`: the experiment. `names`: the class list. `anchors`: six (width, height) in input pixels."""

    config: Config
    names: tuple[str, ...]
    anchors: list[list[float]]


def first_runtime(path: str | Path) -> str:
    """The backend that runs ONNX files here.

    Raises:
        UserError: none is installed.
    """
    for name in RUNTIMES:
        if importlib.util.find_spec(name):
            return name
    raise UserError(f"{path}: nothing is installed that runs ONNX: pip install onnxruntime")


def read_onnx(path: str | Path) -> OnnxFile:
    """Read the metadata of a file that `nets.io.onnx_export.write_onnx` wrote.

    Raises:
        UserError: not readable, from another program, or no runtime is installed.
    """
    runtime = first_runtime(path)
    try:
        texts = (
            _with_onnxruntime(str(path)) if runtime == "onnxruntime" else _with_openvino(str(path))
        )
    except (
        Exception
    ) as error:  # both runtimes have exceptions of their own for every kind of damage
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: not readable as ONNX: {reason}") from None
    missing = [key for key in KEYS if key not in texts]
    if missing:
        raise UserError(
            f"{path}: no {missing[0]} in its metadata; expected an ONNX file that export.py wrote"
        )
    config = restore_config(yaml.safe_load(texts["config"]), str(path))
    return OnnxFile(config, tuple(json.loads(texts["names"])), json.loads(texts["anchors"]))


def _with_onnxruntime(path: str) -> dict[str, str]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.get_modelmeta().custom_metadata_map


def _with_openvino(path: str) -> dict[str, str]:
    import openvino

    model = openvino.Core().read_model(path)
    places = {key: ["framework", key] for key in KEYS}
    return {
        key: model.get_rt_info(place).astype(str)
        for key, place in places.items()
        if model.has_rt_info(place)
    }
