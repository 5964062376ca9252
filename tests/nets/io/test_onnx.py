"""The metadata of ONNX files: read with either runtime, from any version, of our files only."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from old_files import with_old_keys

from nets import load_model
from nets.io.onnx import read_onnx
from utils.core.config import make_config
from utils.core.errors import UserError

onnx = pytest.importorskip("onnx", reason="needs onnx: pip install onnx")
ANCHORS = [[4.0 * i, 5.0 * i] for i in range(1, 7)]


def write_model(path: Path, config: dict[str, Any] | None = None) -> Path:
    """An ONNX file that computes nothing, with our metadata if a configuration is given."""
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "graph", [value], [result])
    opset = onnx.helper.make_opsetid("", 17)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
    if config is not None:
        texts = {"config": yaml.safe_dump(config), "names": '["cat", "Hündin"]'}
        onnx.helper.set_model_props(model, {**texts, "anchors": json.dumps(ANCHORS)})
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
