"""Writing a network as ONNX, with all that is needed to use the file: `nets.io.onnx_file` reads it back."""

import copy
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from nets.yolo.pipeline import Pipeline
from nets.yolo.yolov4_tiny import YOLOv4Tiny
from utils.core.config import dump_config
from utils.core.errors import UserError, require_package
from utils.core.schema import Config

LEAST_OPSET = 18  # of PyTorch's exporter; it goes lower by conversions that fail
INPUT, OUTPUTS = "images", ("boxes", "scores")


def write_onnx(
    network: YOLOv4Tiny,
    config: Config,
    names: Sequence[str],
    path: str | Path,
    opset: int | None = None,
) -> None:
    """Write a network as ONNX without NMS.

    Input `images` `(N, 3, H, W)`, float32, RGB, 0..1, any N, H and W of `config.input_size`. Outputs `boxes`
    `(N, A, 4)`, xyxy in input pixels, and `scores` `(N, A, C)`, objectness times class probability. Batch
    normalization is folded. The file's `metadata_props` hold `names` (JSON), `anchors` (JSON) and `config` (YAML).

    Args:
        opset: version of ONNX's operators; none: what PyTorch's exporter writes by itself.

    Raises:
        UserError: onnx or onnxscript is not installed, or the exporter refuses the opset.
    """
    onnx = require_package("onnx", "export to ONNX")
    require_package("onnxscript", "export to ONNX")
    if opset is not None and opset < LEAST_OPSET:
        raise UserError(f"--opset {opset}: expected {LEAST_OPSET} or more")
    model = _traced(network, config, opset)
    properties = {
        "names": json.dumps(list(names), ensure_ascii=False),
        "anchors": json.dumps(network.coder.anchors.tolist()),
        "config": dump_config(config),
    }
    onnx.helper.set_model_props(model, properties)
    onnx.save(model, path)


def _traced(network: YOLOv4Tiny, config: Config, opset: int | None) -> Any:
    """The `onnx.ModelProto` that PyTorch's exporter makes."""
    pipeline = Pipeline(copy.deepcopy(network).cpu().float(), config.input_size).eval()
    images = torch.rand(
        2, 3, *config.input_size
    )  # one image would be taken for a batch of one for ever
    batch = torch.export.Dim(
        "batch", max=2**31 - 1
    )  # without a bound PyTorch 2.7 forbids a single value, 2**63 - 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch about itself
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
