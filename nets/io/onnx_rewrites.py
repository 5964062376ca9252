"""Rewriting ONNX graphs into operators that OpenCV takes, too; the results stay the same.

PyTorch's exporter writes valid ONNX which ONNX Runtime and OpenVINO run as it is. OpenCV refuses
some of it, or computes it wrongly:

    4.x: `Unsqueeze` of several axes; constants of type bool, as in `masked_fill` with a fixed mask;
         a constant index of `Gather`, or first matrix of `MatMul`, with other uses; `Split` of a
         constant; `Shape` of some axes; the slope of `HardSigmoid`;
         `InstanceNormalization` of values with a mean far above their deviation, of which it takes
         the variance as the mean of the squares less the square of the mean
    5.0: sums and products of feature maps of different shapes that come from convolutions: these
         run in blocks of channels, or as a part of a convolution, and there nothing is broadcast

So attention blocks can be written without a thought of these.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, numpy_helper

FEATURES = 4  # axes of a feature map (N, C, H, W)
BROADCASTING = ("Add", "Sub", "Mul", "Div", "Max", "Min")


class _Graph:
    """A graph in which nodes are replaced; knows constants, shapes and who computes what.

    Attributes:
        constants: values of the constants, by name.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
        infos = (*graph.value_info, *graph.input, *graph.output)
        self._shapes = {info.name: _dimensions(info) for info in infos}
        self._producers = {name: node for node in graph.node for name in node.output}

    def shape(self, name: str) -> tuple[int | str, ...] | None:
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

    def rewrite(self, rules: dict[str, Callable[["_Graph", NodeProto], list[NodeProto]]]) -> None:
        """Replace each node by what the rule of its operator returns, and drop unused constants."""
        nodes: list[NodeProto] = []
        for node in self.graph.node:
            nodes += rules[node.op_type](self, node) if node.op_type in rules else [node]
        self._replace("node", nodes)
        used = {name for node in nodes for name in node.input}
        used |= {item.name for item in self.graph.output}
        self._replace("initializer", [t for t in self.graph.initializer if t.name in used])
        known = used | {name for node in nodes for name in node.output}
        self._replace("value_info", [info for info in self.graph.value_info if info.name in known])

    def _replace(self, field: str, items: Sequence[Any]) -> None:
        kept = list(items)
        self.graph.ClearField(field)
        getattr(self.graph, field).extend(kept)


def _dimensions(info: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    return tuple(size.dim_param or size.dim_value for size in info.type.tensor_type.shape.dim)


def make_portable(model: onnx.ModelProto) -> None:
    """Rewrite the graph of a model in place.

    Args:
        model: from PyTorch's exporter, with the shapes of all tensors; its input size is fixed.
    """
    _Graph(model.graph).rewrite(RULES)


def _one_axis_at_a_time(graph: _Graph, node: NodeProto) -> list[NodeProto]:
    """`Unsqueeze` of axes a < b: of a, then of b."""
    axes, shape = graph.constants.get(node.input[-1]), graph.shape(node.output[0])
    if axes is None or shape is None or axes.size == 1:
        return [node]
    steps, name = [], node.input[0]
    for axis in sorted(int(axis) % len(shape) for axis in axes):
        index = graph.constant(np.array([axis], np.int64), node.output[0])
        output = f"{node.output[0]}.axis{axis}"
        steps.append(onnx.helper.make_node("Unsqueeze", [name, index], [output]))
        name = output
    steps[-1].output[0] = node.output[0]
    return steps


def _without_bool(graph: _Graph, node: NodeProto) -> list[NodeProto]:
    """`Where(mask, number, x)` of a constant mask: `x * (not mask) + (number where mask)`."""
    mask, number, other = (graph.constants.get(name) for name in node.input)
    kept = node.input[2]
    if mask is not None and number is None and other is not None:
        mask, number, kept = ~mask, other, node.input[1]
    if mask is None or number is None or number.size != 1 or kept in graph.constants:
        return [node]
    if np.isfinite(number):
        factor = graph.constant((~mask).astype(number.dtype), node.output[0])
        product = onnx.helper.make_node("Mul", [kept, factor], [f"{node.output[0]}.kept"])
        if not number:
            product.output[0] = node.output[0]
            return [product]
        steps, kept = [product], product.output[0]
    else:  # infinity times zero is not zero; and infinity plus x needs no zeros
        steps = []
    summand = graph.constant(np.where(mask, number, 0).astype(number.dtype), node.output[0])
    return [*steps, onnx.helper.make_node("Add", [kept, summand], list(node.output))]


def _without_layout(graph: _Graph, node: NodeProto) -> list[NodeProto]:
    """A sum or product of feature maps: a `Reshape` to the same shape ends OpenCV's own layout."""
    index = _operand_to_reshape(graph, node)
    if index is None:
        return [node]
    name = node.input[index]
    _, *sizes = graph.shape(name) or ()
    shape = graph.constant(np.array([-1, *sizes], np.int64), node.output[0])  # -1: the batch size
    reshaped = onnx.helper.make_node("Reshape", [name, shape], [f"{node.output[0]}.operand"])
    node.input[index] = reshaped.output[0]
    return [reshaped, node]


def _operand_to_reshape(graph: _Graph, node: NodeProto) -> int | None:
    """The index of the smaller operand of a broadcast that OpenCV 5 refuses; None: of no such."""
    shapes = [graph.shape(name) for name in node.input]
    if any(shape is None or len(shape) != FEATURES for shape in shapes):
        return None
    sizes = [shape[1:] for shape in shapes if shape]
    if any(isinstance(size, str) for size in (*sizes[0], *sizes[1])) or sizes[0] == sizes[1]:
        return None
    if node.op_type != "Add" and sizes[0][0] == sizes[1][0]:
        return None
    return 0 if sizes[0] < sizes[1] else 1


def _with_own_constant(graph: _Graph, node: NodeProto) -> list[NodeProto]:
    """`Gather` with a constant index, `MatMul` with a constant matrix first: used nowhere else."""
    position = 1 if node.op_type == "Gather" else 0
    values = graph.constants.get(node.input[position])
    if values is not None:
        node.input[position] = graph.constant(values, node.output[0])
    return [node]


def _whole_shape(graph: _Graph, node: NodeProto) -> list[NodeProto]:
    """`Shape` of some axes: of all, then a `Gather`."""
    given = {item.name: item.i for item in node.attribute}
    shape, name = graph.shape(node.input[0]), node.output[0]
    if shape is None or not given:
        return [node]
    axes = np.arange(len(shape))[given.get("start", 0) : given.get("end", len(shape))]
    index = graph.constant(axes, name)
    return [
        onnx.helper.make_node("Shape", list(node.input), [f"{name}.whole"]),
        onnx.helper.make_node("Gather", [f"{name}.whole", index], [name], axis=0),
    ]


def _without_identity(graph: _Graph, node: NodeProto) -> list[NodeProto]:
    """`Identity` of a constant: a constant of its own, since OpenCV 4.6 takes no other weights."""
    values = graph.constants.get(node.input[0])
    if values is None:
        return [node]
    graph.add(node.output[0], values)
    return []


def _split_constant(graph: _Graph, node: NodeProto) -> list[NodeProto]:
    """`Split` of a constant: its parts, of the sizes that it is given or all alike."""
    values = graph.constants.get(node.input[0])
    if values is None:
        return [node]
    axis = next((item.i for item in node.attribute if item.name == "axis"), 0)
    size = -(-values.shape[axis] // len(node.output))
    ends = np.arange(size, values.shape[axis], size)
    if len(node.input) > 1:
        ends = np.cumsum(graph.constants[node.input[1]])[:-1]
    for name, part in zip(node.output, np.split(values, ends, axis), strict=True):
        graph.add(name, part)
    return []


def _clipped(graph: _Graph, node: NodeProto) -> list[NodeProto]:
    """`HardSigmoid` by its definition: `Clip(alpha * x + beta, 0, 1)`."""
    given = {item.name: item.f for item in node.attribute}
    output = node.output[0]
    values = (given.get("alpha", 0.2), given.get("beta", 0.5), 0, 1)
    alpha, beta, low, high = (graph.constant(np.array(x, np.float32), output) for x in values)
    return [
        onnx.helper.make_node("Mul", [node.input[0], alpha], [f"{output}.scaled"]),
        onnx.helper.make_node("Add", [f"{output}.scaled", beta], [f"{output}.shifted"]),
        onnx.helper.make_node("Clip", [f"{output}.shifted", low, high], [output]),
    ]


def _centered(graph: _Graph, node: NodeProto) -> list[NodeProto]:
    """The instance norm of a softmax: the mean is 1 / (length of the softmax), and cancels."""
    name = node.input[0]
    shape = graph.shape(name)
    if graph.producer(name) != "Softmax" or shape is None or isinstance(shape[-1], str):
        return [node]
    mean = graph.constant(np.array(1 / shape[-1], np.float32), node.output[0])
    centered = onnx.helper.make_node("Sub", [name, mean], [f"{node.output[0]}.centered"])
    node.input[0] = centered.output[0]
    return [centered, node]


RULES: dict[str, Callable[[_Graph, NodeProto], list[NodeProto]]] = {
    "Unsqueeze": _one_axis_at_a_time,
    "Where": _without_bool,
    "Shape": _whole_shape,
    "Identity": _without_identity,
    "Split": _split_constant,
    "HardSigmoid": _clipped,
    "Gather": _with_own_constant,
    "MatMul": _with_own_constant,
    "InstanceNormalization": _centered,
    **dict.fromkeys(BROADCASTING, _without_layout),
}
