"""Post-training quantization of the convolutions to int8 with NNCF, on the user's images."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nets.inference.backends.base import ModelSpec, cached
from nets.io.exported import PRECISION
from nets.io.openvino import save_openvino
from utils.core.errors import UserError, require_package

SETTING = "precision=int8"


def quantized_file(spec: ModelSpec) -> Path:
    """Return the model as int8 OpenVINO IR; created on first use (about a minute), then cached.

    Raises:
        UserError: a package is missing, or there are no images to calibrate on.
    """
    if spec.exported and spec.exported.precision == "int8":
        return spec.exported.path
    path = spec.cache_file("-int8.xml")
    return cached([path, path.with_suffix(".bin")], partial(_write_quantized, spec))


def _write_quantized(spec: ModelSpec, path: Path) -> None:
    if spec.calibration is None:
        raise UserError(
            f"{SETTING}: no images to calibrate on; run eval.py with {SETTING} once to calibrate"
        )
    quantize_file(spec.file(".onnx", ".xml"), path, spec.calibration())


def quantize_file(source: Path, path: Path, canvases: np.ndarray, batch: int | None = None) -> None:
    """Quantize an ONNX or OpenVINO file.

    Args:
        source: the file, of any batch size.
        path: the `.xml` file to write; the `.bin` is written next to it.
        canvases: uint8 `(n, H, W, 3)` to calibrate on.
        batch: number of images per call; None: any.

    Raises:
        UserError: openvino or nncf is not installed.
    """
    openvino = require_package("openvino", SETTING)
    nncf = require_package("nncf", SETTING)
    quantized = _quantize(nncf, openvino.Core().read_model(source), canvases)
    if batch:
        quantized.reshape([batch, 3, *canvases.shape[1:3]])
    quantized.set_rt_info("int8", ["framework", PRECISION])
    save_openvino(quantized, path, half=False)


def _quantize(nncf: Any, model: Any, canvases: np.ndarray) -> Any:
    nncf.set_log_level(logging.ERROR)
    excluded = [_first_convolution(model), *_decoding(model)]
    return nncf.quantize(
        model,
        nncf.Dataset(list(canvases), _to_input),
        # asymmetric activations: leaky ReLU's have a short negative side
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(canvases),
        ignored_scope=nncf.IgnoredScope(names=excluded),
        advanced_parameters=_ranges(nncf),
    )


def _ranges(nncf: Any) -> Any:
    """The whole range of all images; the default, the mean of the ranges of each, clips.

    AP lost by four networks for NEU-DET and BCCD: -0.1 to 0.3; with the default, -0.1 to 0.5.
    """
    whole = nncf.quantization.range_estimator.RangeEstimatorParametersSet.MINMAX
    return nncf.AdvancedQuantizationParameters(activations_range_estimator_params=whole)


def _to_input(canvas: np.ndarray) -> np.ndarray:
    """uint8 `(H, W, 3)` -> float32 `(1, 3, H, W)`, 0..1."""
    return canvas.transpose(2, 0, 1)[None].astype(np.float32) / 255


def _first_convolution(model: Any) -> str:
    """Name of the first convolution, which stays in float32.

    It takes a tenth of the time, but quantizing it causes most of the AP lost (0.7 of 0.8 on
    NEU-DET).
    """
    nodes = model.get_ordered_ops()
    return next(node.get_friendly_name() for node in nodes if node.get_type_name() == "Convolution")


def _decoding(model: Any) -> list[str]:
    """Names of the operations after the heads: 256 steps are too few for coordinates."""
    nodes = [result.input_value(0).get_node() for result in model.get_results()]
    names: set[str] = set()
    while nodes:
        node = nodes.pop()
        name = node.get_friendly_name()
        kind = node.get_type_name()
        if kind == "Convolution" or name in names:
            continue
        if kind not in ("Constant", "Parameter"):
            names.add(name)
        nodes += [value.get_node() for value in node.input_values()]
    return sorted(names)
