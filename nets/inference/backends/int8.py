"""Post-training quantization of the convolutions to int8, with NNCF, calibrated on the user's own pictures."""

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np

from nets.inference.backends.base import Source
from utils.core.errors import UserError, require_package

WANTED_BY = "precision=int8"


def quantized_file(source: Source) -> Path:
    """The model as OpenVINO IR in int8, made when it is asked for first (a minute) and kept beside the weights.

    Raises:
        UserError: a package is missing, or there are no images to calibrate on.
    """
    path = source.cached("-int8.xml")
    if path.is_file():
        return path
    openvino, nncf = require_package("openvino", WANTED_BY), require_package("nncf", WANTED_BY)
    if source.calibration is None:
        raise UserError(
            f"{WANTED_BY}: no images to calibrate on; run eval.py with it once: it has some"
        )
    model = openvino.Core().read_model(source.onnx_file())
    quantized = _quantize(nncf, model, source.calibration())
    part = path.with_suffix(f".{os.getpid()}.xml")
    openvino.save_model(quantized, part, compress_to_fp16=False)
    part.with_suffix(".bin").replace(path.with_suffix(".bin"))
    part.replace(path)  # last: the file that tells that both are whole
    return path


def _quantize(nncf: Any, model: Any, canvases: np.ndarray) -> Any:
    nncf.set_log_level(logging.ERROR)
    pictures = nncf.Dataset(list(canvases), _to_image)
    return nncf.quantize(
        model,
        pictures,
        preset=nncf.QuantizationPreset.MIXED,  # asymmetric activations: leaky ReLU's have a short negative side
        subset_size=len(canvases),
        ignored_scope=nncf.IgnoredScope(
            names=[_first_convolution(model), *_after_the_heads(model)]
        ),
    )


def _to_image(canvas: np.ndarray) -> np.ndarray:
    """Uint8 `(H, W, 3)` -> float32 `(1, 3, H, W)`, 0..1."""
    return canvas.transpose(2, 0, 1)[None].astype(np.float32) / 255


def _first_convolution(model: Any) -> str:
    """It costs a tenth of the time in float32, and in int8 most of the AP that is lost (0.7 of 0.8 on NEU-DET)."""
    nodes = model.get_ordered_ops()
    return next(node.get_friendly_name() for node in nodes if node.get_type_name() == "Convolution")


def _after_the_heads(model: Any) -> list[str]:
    """Names of the operations that decode boxes and scores: 256 steps are too few for coordinates."""
    waiting = [result.input_value(0).get_node() for result in model.get_results()]
    names: set[str] = set()
    while waiting:
        node = waiting.pop()
        name, kind = node.get_friendly_name(), node.get_type_name()
        if kind == "Convolution" or name in names:
            continue
        if kind not in ("Constant", "Parameter"):
            names.add(name)
        waiting += [value.get_node() for value in node.input_values()]
    return sorted(names)
