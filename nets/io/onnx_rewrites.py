"""Rewriting ONNX graphs into operators that OpenCV takes, too; the results stay the same.

PyTorch's exporter writes valid ONNX which ONNX Runtime and OpenVINO run as it is. OpenCV refuses
some of it, or computes it wrongly:

    4.x: `Unsqueeze` of several axes; constants of type bool, as in `masked_fill` with a fixed mask;
         a constant index of `Gather`, or first matrix of `MatMul`, with other uses; arithmetic of
         constants; `Shape` of some axes; the batch size as a number; `Slice` backwards; the slope
         of `HardSigmoid`;
         `InstanceNormalization` of values with a mean far above their deviation, of which it takes
         the variance as the mean of the squares less the square of the mean
    5.0: sums and products of feature maps of different shapes that come from convolutions: these
         run in blocks of channels, or as a part of a convolution, and there nothing is broadcast;
         of two `Reshape` in a row, a 0 in the second

So attention blocks can be written without a thought of these.
"""

import numpy as np
import onnx
from onnx import NodeProto

from nets.io.onnx_graph import Graph, Rule

FEATURES = 4  # axes of a feature map (N, C, H, W)
BROADCASTING = ("Add", "Sub", "Mul", "Div", "Max", "Min")


def make_portable(model: onnx.ModelProto) -> None:
    """Rewrite the graph of a model in place.

    Args:
        model: from PyTorch's exporter, with the shapes of all tensors; its input size is fixed.
    """
    Graph(model).rewrite(RULES)


def _one_axis_at_a_time(graph: Graph, node: NodeProto) -> list[NodeProto]:
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


def _without_bool(graph: Graph, node: NodeProto) -> list[NodeProto]:
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


def _without_layout(graph: Graph, node: NodeProto) -> list[NodeProto]:
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


def _operand_to_reshape(graph: Graph, node: NodeProto) -> int | None:
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


def _with_own_constant(graph: Graph, node: NodeProto) -> list[NodeProto]:
    """`Gather` with a constant index, `MatMul` with a constant matrix first: used nowhere else."""
    position = 1 if node.op_type == "Gather" else 0
    values = graph.constants.get(node.input[position])
    if values is not None:
        node.input[position] = graph.constant(values, node.output[0])
    return [node]


def _whole_shape(graph: Graph, node: NodeProto) -> list[NodeProto]:
    """`Shape` of some axes: of all, then a `Gather`."""
    given = {item.name: item.i for item in node.attribute}
    shape, name = graph.shape(node.input[0]), node.output[0]
    if shape is None or not given:
        return [node]
    axes = np.arange(len(shape))[given.get("start") : given.get("end")]
    index = graph.constant(axes, name)
    return [
        onnx.helper.make_node("Shape", list(node.input), [f"{name}.whole"]),
        onnx.helper.make_node("Gather", [f"{name}.whole", index], [name], axis=0),
    ]


def _to_fixed_shape(graph: Graph, node: NodeProto) -> list[NodeProto]:
    """`Reshape` to a computed shape: -1 stands for the only size that is not fixed."""
    if node.input[1] in graph.constants:
        return [node]
    for shape in (graph.shape(node.output[0]), graph.sizes.get(node.input[1])):
        if shape is None or 0 in shape:
            continue
        sizes = [size if isinstance(size, int) else -1 for size in shape]
        if sizes.count(-1) <= 1:
            node.input[1] = graph.constant(np.array(sizes, np.int64), node.output[0])
            break
    return [node]


def _without_steps_back(graph: Graph, node: NodeProto) -> list[NodeProto]:
    """`Slice` that turns axes around: a `Gather` along each."""
    values = [graph.constants.get(name) for name in node.input[1:]]
    shape, name, output = graph.shape(node.input[0]), node.input[0], node.output[0]
    if shape is None or len(values) < 4 or any(value is None for value in values):
        return [node]
    slices = [tuple(map(int, each)) for each in zip(*values, strict=True)]
    sizes = [shape[axis] for _, _, axis, _ in slices]
    if all(step > 0 for *_, step in slices) or not all(isinstance(size, int) for size in sizes):
        return [node]
    steps = []
    for (start, end, axis, step), size in zip(slices, sizes, strict=True):
        index = graph.constant(np.arange(size)[start:end:step], output)
        steps.append(
            onnx.helper.make_node("Gather", [name, index], [f"{output}.axis{axis}"], axis=axis)
        )
        name = steps[-1].output[0]
    steps[-1].output[0] = output
    return steps


def _counted(graph: Graph, node: NodeProto) -> list[NodeProto]:
    """`Range(0, N, 1)` of the batch size N: a running sum of ones."""
    images, output = graph.graph.input[0].name, node.output[0]
    start, step = (graph.constants.get(node.input[index]) for index in (0, 2))
    size = graph.sizes.get(node.input[1])
    batch, *_ = graph.shape(images) or ("",)
    if start is None or step is None or (start, size, step) != (0, batch, 1):
        return [node]
    zero, one = (graph.constant(np.array(x, np.float32), output) for x in (0, 1))
    axis, first, second, row = (graph.constant(np.array(x), output) for x in (0, [0], [1], [-1]))
    make = onnx.helper.make_node
    return [
        make("Flatten", [images], [f"{output}.flat"]),
        make("Slice", [f"{output}.flat", first, second, second], [f"{output}.values"]),
        make("Mul", [f"{output}.values", zero], [f"{output}.zeros"]),
        make("Add", [f"{output}.zeros", one], [f"{output}.ones"]),
        make("CumSum", [f"{output}.ones", axis], [f"{output}.sums"], exclusive=1),
        make("Reshape", [f"{output}.sums", row], [f"{output}.numbers"]),
        make("Cast", [f"{output}.numbers"], [output], to=onnx.TensorProto.INT64),
    ]


def _clipped(graph: Graph, node: NodeProto) -> list[NodeProto]:
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


def _centered(graph: Graph, node: NodeProto) -> list[NodeProto]:
    """The instance norm of a softmax: the mean is 1 / (length of the softmax), and cancels."""
    name = node.input[0]
    shape = graph.shape(name)
    if graph.producer(name) != "Softmax" or shape is None or isinstance(shape[-1], str):
        return [node]
    mean = graph.constant(np.array(1 / shape[-1], np.float32), node.output[0])
    centered = onnx.helper.make_node("Sub", [name, mean], [f"{node.output[0]}.centered"])
    node.input[0] = centered.output[0]
    return [centered, node]


RULES: dict[str, Rule] = {
    "Unsqueeze": _one_axis_at_a_time,
    "Where": _without_bool,
    "Shape": _whole_shape,
    "Range": _counted,
    "Reshape": _to_fixed_shape,
    "Slice": _without_steps_back,
    "HardSigmoid": _clipped,
    "Gather": _with_own_constant,
    "MatMul": _with_own_constant,
    "InstanceNormalization": _centered,
    **dict.fromkeys(BROADCASTING, _without_layout),
}
