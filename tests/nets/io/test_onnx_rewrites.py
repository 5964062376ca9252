"""Rewritten ONNX graphs compute the same, and OpenCV takes them."""

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.io.onnx_translations import pooling_matrix

onnx = pytest.importorskip("onnx", reason="needs onnx: pip install onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
SHAPE = (1, 8, 6, 5)
MASK = np.arange(30).reshape(6, 5) % 3 == 0

node = onnx.helper.make_node if onnx else None


def model(nodes: list[Any], constants: dict[str, Any]) -> Any:
    """A graph from `x`, float32 `SHAPE`, to `y`, with the shapes of all tensors."""
    float32 = onnx.TensorProto.FLOAT
    make = onnx.helper
    tensors = [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    inputs = [make.make_tensor_value_info("x", float32, ["batch", *SHAPE[1:]])]
    rank = len(SHAPE) if constants.get("axes") is None else len(SHAPE) + 2
    outputs = [make.make_tensor_value_info("y", float32, [f"d{i}" for i in range(rank)])]
    graph = make.make_graph(nodes, "graph", inputs, outputs, tensors)
    written = make.make_model(graph, opset_imports=[make.make_opsetid("", 20)], ir_version=8)
    return onnx.shape_inference.infer_shapes(written)


def run(written: Any, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(written.SerializeToString(), options).run(None, {"x": x})[0]


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def where(*inputs: str) -> list[Any]:
    return [node("Where", list(inputs), ["y"])]


def number(value: float) -> np.ndarray:
    return np.array(value, np.float32)


NORM = {"scale": np.ones(8, np.float32), "bias": np.zeros(8, np.float32)}
CONVS = {"one": weights(1, 8, 1, 1), "all": weights(8, 8, 1, 1)}
FIRST, GATE = node("Conv", ["x", "all"], ["f"]), node("Conv", ["f", "one"], ["g"])
LAST = node("Conv", ["m", "all"], ["y"])
POOL = node("ReduceMean", ["f", "sides"], ["p"], keepdims=1)
KEYS = ("last", "eight", "six", "one")
CASES = {
    "unsqueeze": (
        [node("Unsqueeze", ["x", "axes"], ["y"])],
        {"axes": np.array([-1, 2])},
        lambda nodes, constants: all(len(constants[n.input[1]]) == 1 for n in nodes),
    ),
    "zeros": (where("mask", "n", "x"), {"mask": MASK, "n": number(0)}, "no bool"),
    "other zeros": (where("mask", "x", "n"), {"mask": MASK, "n": number(0)}, "no bool"),
    "fill": (where("mask", "n", "x"), {"mask": MASK, "n": number(3)}, "no bool"),
    "infinity": (where("mask", "n", "x"), {"mask": MASK, "n": number(-np.inf)}, "no bool"),
    "spatial gate": (
        [FIRST, GATE, node("Mul", ["f", "g"], ["m"]), LAST],
        CONVS,
        lambda nodes, constants: "Reshape" in {n.op_type for n in nodes},
    ),
    "channel residual": (
        [FIRST, POOL, node("Conv", ["x", "all"], ["r"]), node("Add", ["p", "r"], ["m"]), LAST],
        {**CONVS, "sides": np.array([2, 3])},
        lambda nodes, constants: "Reshape" in {n.op_type for n in nodes},
    ),
    "hard sigmoid": (
        [node("HardSigmoid", ["x"], ["y"], alpha=1 / 6, beta=0.5)],
        {},
        lambda nodes, constants: "HardSigmoid" not in {n.op_type for n in nodes},
    ),
    "split": (
        [
            node("Split", ["c"], ["a", "b"], axis=0, num_outputs=2),
            node("Mul", ["x", "a"], ["m"]),
            node("Add", ["m", "b"], ["y"]),
        ],
        {"c": weights(2, 5)},
        lambda nodes, constants: "Split" not in {n.op_type for n in nodes},
    ),
    "computed shape": (
        [
            node("Shape", ["x"], ["batch"], start=0, end=1),
            node("Shape", ["x"], ["sizes"]),
            node("Gather", ["sizes", "last"], ["width"]),
            node("Mul", ["width", "eight"], ["all"]),
            node("Concat", ["batch", "all", "six", "one"], ["shape"], axis=0),
            node("Reshape", ["x", "shape"], ["y"]),
        ],
        {key: np.array([n]) for key, n in zip(KEYS, (3, 8, 6, 1), strict=True)},
        lambda nodes, constants: [n.op_type for n in nodes] == ["Reshape"],
    ),
    "number of the image": (
        [
            node("Shape", ["x"], ["sizes"]),
            node("Gather", ["sizes", "zero"], ["batch"]),
            node("Range", ["zero", "batch", "one"], ["r"]),
            node("Cast", ["r"], ["f"], to=1),
            node("Reshape", ["f", "axes4"], ["n"]),
            node("Add", ["x", "n"], ["y"]),
        ],
        {"zero": np.array(0), "one": np.array(1), "axes4": np.array([-1, 1, 1, 1])},
        lambda nodes, constants: "Range" not in {n.op_type for n in nodes},
    ),
    "backwards": (
        [node("Slice", ["x", "from", "to", "sides", "steps"], ["y"])],
        {
            "from": np.array([-1, -2]),
            "to": np.array([-(2**63), 0]),
            "sides": np.array([2, 3]),
            "steps": np.array([-1, -2]),
        },
        lambda nodes, constants: [n.op_type for n in nodes] == ["Gather"] * 2,
    ),
    "instance norm": (
        [
            node("Softmax", ["x"], ["s"], axis=3),
            node("InstanceNormalization", ["s", "scale", "bias"], ["y"], epsilon=1e-5),
        ],
        NORM,
        lambda nodes, constants: nodes[1].op_type == "Sub",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_rewritten_graphs_compute_the_same(name: str) -> None:
    from nets.io.onnx_rewrites import make_portable

    nodes, constants, holds = CASES[name]
    original = model(nodes, constants)
    x = np.random.default_rng(1).normal(size=(3, *SHAPE[1:])).astype(np.float32)
    expected = run(original, x)
    make_portable(original)
    onnx.checker.check_model(original)
    np.testing.assert_allclose(run(original, x), expected, rtol=1e-5, atol=1e-5)
    left = {t.name: onnx.numpy_helper.to_array(t) for t in original.graph.initializer}
    if isinstance(holds, str):
        assert all(value.dtype != bool for value in left.values())
    else:
        assert holds(original.graph.node, left)
    net = cv2.dnn.readNetFromONNX(np.frombuffer(original.SerializeToString(), np.uint8))
    net.setInput(x[:1])
    np.testing.assert_allclose(net.forward(), expected[:1], rtol=1e-5, atol=1e-5)


def test_masks_of_computed_values_stay() -> None:
    from nets.io.onnx_rewrites import make_portable

    nodes = [node("Less", ["x", "n"], ["c"]), node("Where", ["c", "n", "x"], ["y"])]
    written = model(nodes, {"n": number(0)})
    make_portable(written)
    assert [item.op_type for item in written.graph.node] == ["Less", "Where"]


@pytest.mark.parametrize(("inputs", "outputs"), [(7, 3), (5, 5), (2, 6), (9, 1)])
def test_the_matrix_of_adaptive_pooling(inputs: int, outputs: int) -> None:
    x = torch.randn(1, 1, inputs)
    pooled = x @ torch.from_numpy(pooling_matrix(inputs, outputs)).t()
    torch.testing.assert_close(pooled, F.adaptive_avg_pool1d(x, outputs))


class Sampled(nn.Module):
    """Pooled, and sampled from a map and from a column of it."""

    def forward(self, x: Tensor) -> Tensor:
        grid = 1.3 * x[:, :2, :3].transpose(1, 3)  # positions outside, too
        zeros = F.grid_sample(x, grid, padding_mode="zeros", align_corners=False)
        border = F.grid_sample(x[..., :1], grid, padding_mode="border", align_corners=True)
        pooled = F.adaptive_avg_pool2d(x, (5, 3))
        return torch.cat([zeros, border, pooled], 1)


def test_pooling_and_sampling_are_translated() -> None:
    pytest.importorskip("onnxscript")
    from nets.io.onnx_trace import trace

    x = torch.rand(3, 8, 6, 5) * 2 - 1
    written = trace(Sampled().eval(), x[:2], ["x"], ["y"])
    used = {item.op_type for item in written.graph.node}
    assert not used & {"GridSample", "GatherND"}
    torch.testing.assert_close(torch.from_numpy(run(written, x.numpy())), Sampled()(x))
