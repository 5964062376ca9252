"""Exported networks."""

from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from nets.io.onnx import INPUT, OUTPUTS, read_onnx
from tests.robustness.kinds.kind import Kind, to_json, to_yaml
from utils.core.schema import Config


def _onnx_model() -> onnx.ModelProto:
    """A graph with the inputs and outputs of an exported network of two classes."""
    shapes = {
        INPUT: ["batch", 3, 32, 32],
        OUTPUTS[0]: ["batch", 15, 4],
        OUTPUTS[1]: ["batch", 15, 2],
    }
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    ]
    nodes = []
    for info in infos[1:]:
        sides = [dimension.dim_value for dimension in info.type.tensor_type.shape.dim[1:]]
        value = helper.make_tensor(
            "value", TensorProto.FLOAT, [1, *sides], [0.0] * sides[0] * sides[1]
        )
        nodes.append(helper.make_node("Constant", [], [info.name], value=value))
    graph = helper.make_graph(nodes, "network", infos[:1], infos[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _onnx(folder: Path) -> Kind:
    """The metadata of an exported network, and its graph as bytes."""
    value = {
        "config": Config(input_size=32).model_dump(mode="json"),
        "names": ["cat", "dog"],
        "anchors": [[10.0 * side, 12.0 * side] for side in range(1, 7)],
    }

    def write(value: Any) -> bytes:
        model = _onnx_model()
        texts = {}
        for key, item in value.items() if isinstance(value, dict) else ():
            content = to_yaml(item) if key == "config" else to_json(item)
            texts[str(key)] = content.decode("utf-8", "replace")
        helper.set_model_props(model, texts)
        return model.SerializeToString()

    return Kind(folder / "a.onnx", read_onnx, (write(value),), False, (value,), write, share=0.1)


KINDS = {
    "onnx": _onnx,
}
