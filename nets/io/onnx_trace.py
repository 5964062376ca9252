"""PyTorch's exporter to ONNX, and what makes its graphs run everywhere."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from nets.io.exported import silence
from nets.io.onnx_translations import TRANSLATIONS
from utils.core.errors import UserError, shorten


def trace(
    module: nn.Module,
    images: Tensor,
    inputs: Sequence[str],
    outputs: Sequence[str],
    opset: int | None = None,
    any_batch: bool = True,
) -> Any:
    """Return a module as an `onnx.ModelProto` that ONNX Runtime, OpenVINO and OpenCV take.

    Args:
        module: in evaluation mode, on the CPU; takes one tensor.
        images: an example, `(N, C, H, W)`; the model takes no other C, H and W.
        inputs: the name of the input.
        outputs: the names of the outputs.
        opset: ONNX opset version; None: the default of PyTorch's exporter.
        any_batch: the model takes any N; the example's must be above 1, where the exporter would
            fix it.

    Raises:
        UserError: the exporter does not support the opset.
    """
    from nets.io.onnx_rewrites import make_portable  # needs the package onnx

    # PyTorch 2.7 needs a bound: without one it forbids a single value, 2**63 - 1
    batch = torch.export.Dim("batch", max=2**31 - 1)
    with silence(), _refusals(opset):
        program = torch.onnx.export(
            module,
            (images,),
            dynamo=True,
            verbose=False,
            opset_version=opset,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=({0: batch},) if any_batch else None,
            custom_translation_table=TRANSLATIONS,
        )
    assert program is not None
    model = program.model_proto
    make_portable(model)
    return model


def trace_formerly(
    module: nn.Module,
    images: Tensor,
    inputs: Sequence[str],
    outputs: Sequence[str],
    opset: int,
    any_batch: bool = True,
) -> Any:
    """`trace` by PyTorch's former exporter, which writes opsets below 18, for older runtimes."""
    import onnx

    from nets.io.onnx_graph import Graph
    from nets.io.onnx_rewrites import RULES

    file = io.BytesIO()
    with silence(), _refusals(opset):
        torch.onnx.export(
            module,
            (images,),
            file,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=opset,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: {0: "batch"} for name in (*inputs, *outputs)}
            if any_batch
            else None,
        )
    model = onnx.load_from_string(file.getvalue())
    for rules in ({}, RULES):  # once the limits of slices are constants, their shapes can be known
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        Graph(model).rewrite(rules)
    return model


@contextmanager
def _refusals(opset: int | None) -> Iterator[None]:
    """Report in one line that an exporter does not support the opset that was asked for."""
    try:
        yield
    except Exception as error:
        if opset is None:
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"--opset {opset}: refused by PyTorch {torch.__version__}: {shorten(reason, 200)}"
        ) from None
