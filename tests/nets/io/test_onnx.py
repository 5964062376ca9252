"""The metadata of ONNX files: read with either runtime, from any version, of our files only."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from old_files import with_old_keys

from nets import load_model
from nets.io import onnx as onnx_module
from nets.io.onnx import read_onnx
from utils.core.config import make_config
from utils.core.errors import UserError
from utils.core.schema import Config

onnx = pytest.importorskip("onnx", reason="needs onnx: pip install onnx")
NAMES = '["cat", "Hündin"]'
ANCHORS = [[4.0 * i, 5.0 * i] for i in range(1, 7)]


def write_model(
    path: Path,
    config: dict[str, Any] | None = None,
    texts: dict[str, str] | None = None,
    classes: int = 2,
    value: float = 0.5,
) -> Path:
    """An ONNX file whose outputs are constant.

    Args:
        path: the file to write.
        config: the configuration in the metadata; None: no metadata.
        texts: replaces other parts of the metadata.
        classes: number of classes of the graph.
        value: the value of all scores and coordinates.
    """
    height, width = Config(**{"input_size": (config or {}).get("input_size", 64)}).input_size
    predictions = sum(3 * (height // stride) * (width // stride) for stride in (32, 16))
    make = onnx.helper
    float32 = onnx.TensorProto.FLOAT
    nodes, outputs = [], []
    for name, last in (("boxes", 4), ("scores", classes)):
        shape = make.make_tensor("", onnx.TensorProto.INT64, [3], [1, predictions, last])
        fill = make.make_tensor("", float32, [1], [value])
        nodes.append(make.make_node("Constant", [], [f"{name}_shape"], value=shape))
        nodes.append(make.make_node("ConstantOfShape", [f"{name}_shape"], [name], value=fill))
        outputs.append(make.make_tensor_value_info(name, float32, [1, predictions, last]))
    images = make.make_tensor_value_info("images", float32, ["N", 3, height, width])
    graph = make.make_graph(nodes, "graph", [images], outputs)
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
    if config is not None:
        metadata = {"config": yaml.safe_dump(config), "names": NAMES, **(texts or {})}
        make.set_model_props(model, {"anchors": json.dumps(ANCHORS), **metadata})
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_metadata_is_read_with_the_runtime_that_is_installed(
    runtime: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(runtime)
    find_spec = importlib.util.find_spec
    others = {"onnxruntime", "openvino"} - {runtime}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in others else find_spec(name)
    )
    config = make_config({"phi": "cbam", "input_size": [64, 96]})
    path = write_model(tmp_path / "a.onnx", config.model_dump(mode="json"))
    metadata = read_onnx(path)
    assert metadata.config == config
    assert (metadata.names, metadata.anchors) == (("cat", "Hündin"), ANCHORS)
    assert load_model(path).backend_name == runtime


def test_a_file_with_old_names_of_keys_loads(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    config = make_config({"predict": {"vote_iou": 0.7}, "augment": {"hsv_h": 0.2}})
    detector = load_model(write_model(tmp_path / "old.onnx", with_old_keys(config)))
    assert detector.config.predict.vote_iou == 0.7 and detector.config.augment.hsv_h == 0.2


def test_other_files_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    write_model(tmp_path / "other.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(UserError, match=r"other\.onnx: no config in its metadata"):
        load_model(tmp_path / "other.onnx")
    with pytest.raises(UserError, match=r"text\.onnx: not readable as ONNX") as caught:
        load_model(tmp_path / "text.onnx")
    assert "\n" not in str(caught.value)


def test_without_a_runtime_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"a\.onnx: no ONNX runtime is installed"):
        read_onnx(tmp_path / "a.onnx")


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("texts", "classes", "words"),
    [
        ({"config": "[" * 5000}, 2, "config: not valid YAML"),
        ({"config": "- 3"}, 2, "expected a valid dictionary, got a value of type list"),
        ({"config": "input_size: 33"}, 2, "config: input_size: expected an integer"),
        (
            {"config": "input_size: 96"},
            2,
            r"images has shape \(N, 3, 64, 64\), .* 96, 96\)",
        ),
        ({"names": "[" * 5000}, 2, "names: not valid JSON"),
        ({"names": '["a", 3]'}, 2, r"names: 1: expected a valid string, got 3"),
        ({"names": '["a", "a"]'}, 2, "names: class 'a' is listed twice"),
        ({"names": '["a", ""]'}, 2, "names: expected a class name, got none"),
        ({"names": '["a"]'}, 2, r"scores has shape \(N, 60, 2\), .* \(N, 60, 1\)"),
        ({"anchors": "[[1, 2]]"}, 2, "anchors: expected"),
        ({"anchors": json.dumps(ANCHORS + ANCHORS[:3])}, 2, "expected 6 for model.heads=2, got 9"),
        ({"anchors": json.dumps([[1e400, 1]] * 6).replace("Infinity", "1e400")}, 2, "anchors: 0.0"),
        ({}, 3, r"scores has shape \(N, 60, 3\), .* \(N, 60, 2\)"),
    ],
)
def test_metadata_that_are_malformed_or_disagree_with_the_graph_are_refused(
    texts: dict[str, str],
    classes: int,
    words: str,
    runtime: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip(runtime)
    monkeypatch.setattr(onnx_module, "find_runtime", lambda path: runtime)
    config = make_config({"input_size": 64}).model_dump(mode="json")
    path = write_model(tmp_path / "a.onnx", config, texts, classes)
    with pytest.raises(UserError, match=words) as caught:
        read_onnx(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_outputs_that_are_not_finite_are_refused(backend: str, tmp_path: Path) -> None:
    pytest.importorskip(backend)
    config = make_config({"input_size": 64}).model_dump(mode="json")
    image = np.zeros((64, 64, 3), np.uint8)
    fine = write_model(tmp_path / "fine.onnx", config)
    assert load_model(fine, backend=backend, device="cpu")(image).names == ("cat", "Hündin")
    damaged = write_model(tmp_path / "nan.onnx", config, value=float("nan"))
    with pytest.raises(UserError, match=r"nan\.onnx: its network returns NaN"):
        load_model(damaged, backend=backend, device="cpu")(image)
