"""An ONNX graph in which nodes are replaced, and what is constant is computed. Needs onnx."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, numpy_helper

MAX_GROWTH = 2**16  # elements of a computed constant, if its inputs are smaller

Size = int | str  # of an axis; a name if it is not fixed
Rule = Callable[["Graph", NodeProto], list[NodeProto]]


class Graph:
    """A graph in which nodes are replaced; knows constants, shapes and who computes what.

    Attributes:
        constants: values of the constants, by name.
        sizes: the values of tensors that hold sizes of axes, by name: arrays of `Size`.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.opsets = model.opset_import
        self.constants = {item.name: numpy_helper.to_array(item) for item in self.graph.initializer}
        self.sizes: dict[str, np.ndarray] = {}
        infos = (*self.graph.value_info, *self.graph.input, *self.graph.output)
        shaped = [info for info in infos if info.type.tensor_type.HasField("shape")]
        self._shapes = {info.name: _dimensions(info) for info in shaped}
        self._producers = {name: node for node in self.graph.node for name in node.output}

    def shape(self, name: str) -> tuple[Size, ...] | None:
        """The sizes of a computed tensor, with names for unknown ones; None: not known."""
        return None if name in self.constants else self._shapes.get(name)

    def producer(self, name: str) -> str:
        """The operator that computes a tensor, or ""."""
        node = self._producers.get(name)
        return node.op_type if node else ""

    def constant(self, values: np.ndarray, near: str) -> str:
        """Add a constant; return its name, which starts with `near`."""
        name = f"{near}.constant{len(self.constants)}"
        self.add(name, values)
        return name

    def add(self, name: str, values: np.ndarray) -> None:
        """Add a constant of that name."""
        self.constants[name] = values
        self.graph.initializer.append(numpy_helper.from_array(values, name))

    def rewrite(self, rules: Mapping[str, Rule]) -> None:
        """Replace each node by what the rule of its operator returns.

        Nodes of constants only become constants; what is no longer used is dropped.
        """
        nodes: list[NodeProto] = []
        for node in self.graph.node:
            if not self._compute(node) and not self._compute_sizes(node):
                nodes += rules[node.op_type](self, node) if node.op_type in rules else [node]
        self._keep_used(nodes)

    def _compute(self, node: NodeProto) -> bool:
        """Whether a node became constants."""
        values = [self.constants.get(name) for name in node.input if name]
        if node.op_type != "Constant" and (not values or any(value is None for value in values)):
            return False
        inputs = {name: self.constants[name] for name in node.input if name}
        outputs = self._evaluate(node, inputs)
        limit = max([MAX_GROWTH, *(value.size for value in inputs.values())])
        if not all(isinstance(value, np.ndarray) and value.size <= limit for value in outputs):
            return False
        for name, value in zip(node.output, outputs, strict=True):
            self.add(name, value)
        return True

    def _evaluate(self, node: NodeProto, inputs: Mapping[str, np.ndarray]) -> list[Any]:
        from onnx.reference import ReferenceEvaluator

        make = onnx.helper
        values = [make.make_tensor_value_info(name, 0, None) for name in inputs]
        results = [make.make_tensor_value_info(name, 0, None) for name in node.output]
        graph = make.make_graph([node], "node", values, results)
        model = make.make_model(graph, opset_imports=self.opsets)
        return [np.asarray(value) for value in ReferenceEvaluator(model).run(None, dict(inputs))]

    def _compute_sizes(self, node: NodeProto) -> bool:
        """Whether a node became a constant because the sizes that it picks are fixed."""
        if node.op_type == "Shape":
            sizes = self._shape_sizes(node)
        else:
            sizes = self._picked_sizes(node)
        if sizes is None:
            return False
        self.sizes[node.output[0]] = sizes
        is_fixed = all(isinstance(size, int) for size in sizes.flat)
        if is_fixed:
            self.add(node.output[0], sizes.astype(np.int64))
        return is_fixed

    def _shape_sizes(self, node: NodeProto) -> np.ndarray | None:
        given = {item.name: item.i for item in node.attribute}
        shape = self.shape(node.input[0])
        if shape is None:
            return None
        return _objects(shape)[given.get("start") : given.get("end")]

    def _picked_sizes(self, node: NodeProto) -> np.ndarray | None:
        inputs = [self.sizes.get(name, self.constants.get(name)) for name in node.input]
        if node.op_type not in PICKS or not self.sizes.keys() & set(node.input):
            return None
        known = [value for value in inputs if value is not None]
        return PICKS[node.op_type](*known) if len(known) == len(inputs) else None

    def _keep_used(self, nodes: Sequence[NodeProto]) -> None:
        used = {item.name for item in self.graph.output}
        kept: list[NodeProto] = []
        for node in reversed(nodes):
            if used.intersection(node.output):
                kept.append(node)
                used.update(node.input)
        self._replace("node", kept[::-1])
        self._replace("initializer", [t for t in self.graph.initializer if t.name in used])
        known = used | {name for node in kept for name in node.output}
        self._replace("value_info", [info for info in self.graph.value_info if info.name in known])

    def _replace(self, field: str, items: Sequence[Any]) -> None:
        kept = list(items)
        self.graph.ClearField(field)
        getattr(self.graph, field).extend(kept)


def _dimensions(info: onnx.ValueInfoProto) -> tuple[Size, ...]:
    axes = info.type.tensor_type.shape.dim
    return tuple(axis.dim_param or axis.dim_value or "unknown" for axis in axes)


def _objects(values: Any) -> np.ndarray:
    return np.array(values, object)


def _sliced(
    sizes: np.ndarray, start: np.ndarray, end: np.ndarray, *axis_and_step: np.ndarray
) -> np.ndarray:
    step = axis_and_step[1].item() if len(axis_and_step) > 1 else 1
    return sizes[start.item() : end.item() : step]


PICKS: dict[str, Callable[..., np.ndarray]] = {  # what operators make of sizes
    "Concat": lambda *parts: np.concatenate([part.astype(object) for part in parts]),
    "Gather": lambda sizes, index: _objects(sizes[index]),
    "Identity": lambda sizes: sizes,
    "Slice": _sliced,
    "Squeeze": lambda sizes, *axes: sizes.reshape(()),
    "Unsqueeze": lambda sizes, *axes: sizes.reshape(1),
}
