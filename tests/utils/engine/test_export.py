"""`export.py`: ONNX as the contract has it, and mistakes."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

import export as export_cli
from nets import load_model
from nets.io.onnx import write_onnx
from nets.yolo.yolov4_tiny import YOLOv4Tiny, build_model
from tests.packages import skip_without
from utils.core.cli import run_command
from utils.core.config import make_config
from utils.engine.experiment import Result
from utils.engine.export import export

ONNX = ("onnx", "onnxscript", "onnxruntime")


@pytest.fixture(scope="module")
def exported(trained: Result, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    skip_without(*ONNX)
    path = tmp_path_factory.mktemp("onnx") / "new" / "model.onnx"
    return path, export(str(trained.run), "onnx", str(path))


def run_onnx(path: Path, images: Tensor) -> list[Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return [
        torch.from_numpy(part)
        for part in session.run(["boxes", "scores"], {"images": images.numpy()})
    ]


def assert_equal_to_the_network(network: YOLOv4Tiny, path: Path, size: tuple[int, int]) -> None:
    for batch in (1, 3):
        images = torch.rand(batch, 3, *size)
        with torch.no_grad():
            boxes, scores = network.coder(network(images))
        got_boxes, got_scores = run_onnx(path, images)
        torch.testing.assert_close(got_boxes, boxes, atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(got_scores, scores, atol=1e-5, rtol=1e-4)


def test_onnx_is_as_the_contract_has_it(exported: tuple[Path, list[str]], trained: Result) -> None:
    import onnx

    path, lines = exported
    model = onnx.load(path)
    onnx.checker.check_model(model)
    shapes = {
        value.name: [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in [*model.graph.input, *model.graph.output]
    }
    cells = 3 * (2 * 2 + 4 * 4)
    assert shapes == {
        "images": ["batch", 3, 64, 64],
        "boxes": ["batch", cells, 4],
        "scores": ["batch", cells, 6],
    }
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    detector = load_model(trained.run, precision="fp32", device="cpu")
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(properties["names"]) == list(detector.names)
    assert json.loads(properties["anchors"]) == detector.network.coder.anchors.tolist()
    assert yaml.safe_load(properties["config"])["input_size"] == [64, 64]
    assert json.loads(properties["imgsz"]) == [64, 64]
    limits = json.loads(properties["postprocessing"])
    assert detector.config.predict.model_dump().items() <= limits.items()
    assert json.loads(properties["preprocessing"])["pad_value"] == 114
    assert_equal_to_the_network(detector.network, path, (64, 64))
    assert str(path) in lines[0] and "verified with ONNX Runtime" in lines[-1]


def refused_by_opencv(model: Any) -> list[str]:
    """The operators of a kind that a version of OpenCV 4 does not read."""
    dims = {item.name: item.dims for item in model.graph.initializer}
    refused = []
    for node in model.graph.node:
        constant = dims.get(node.input[-1]) if node.input else None
        if node.op_type == "Identity" and constant is not None:
            refused.append(node.name)
        if node.op_type == "Unsqueeze" and constant and constant[0] > 1:
            refused.append(node.name)
    return refused


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phi", "lowest"),
    [("se", 12), ("cbam", 12), ("eca", 12), ("ca", 12), ("self_attention", 14)],
)
@pytest.mark.parametrize("new_coords", [True, False])
def test_attention_is_exported(phi: str, lowest: int, new_coords: bool, tmp_path: Path) -> None:
    skip_without(*ONNX)
    opset = 18 if new_coords else lowest
    coder = {"new_coords": new_coords}
    config = make_config({"phi": phi, "model": coder, "input_size": [64, 96]})
    network = build_model(config, 2).eval()
    write_onnx(network, config, ["a", "b"], tmp_path / "a.onnx", opset=opset)
    import onnx

    model = onnx.load(tmp_path / "a.onnx")
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == opset
    assert not refused_by_opencv(model)
    assert_equal_to_the_network(network, tmp_path / "a.onnx", (64, 96))


def with_attention(folder: Path) -> str:
    from nets.io import checkpoints

    config = make_config({"phi": "se"})
    content = checkpoints.describe(build_model(config, 1), config, ["a"])
    checkpoints.save(folder / "se.pt", content)
    return str(folder / "se.pt")


def test_mistakes_are_one_line(
    trained: Result, exported: tuple[Path, list[str]], tmp_path: Path, monkeypatch, capsys
):
    weights = str(trained.run)
    (tmp_path / "file").write_text("in the way")
    for arguments, words in (
        (["--weights", str(exported[0]), "--format", "onnx"], "already exported"),
        (
            ["--weights", weights, "--format", "darknet", "--opset", "18"],
            "--opset 18: only for --format onnx",
        ),
        (
            ["--weights", weights, "--format", "onnx", "--out", f"{weights}/best.pt"],
            "best.pt: expected a file name that ends in .onnx",
        ),
        (
            ["--weights", weights, "--format", "onnx", "--opset", "3"],
            "--opset 3: expected 12 to ",
        ),
        (
            ["--weights", weights, "--format", "onnx", "device=cuda"],
            "device: expected a key of data or predict",
        ),
        (["--weights", with_attention(tmp_path), "--format", "darknet"], "only phi=none"),
        (
            [
                "--weights",
                weights,
                "--format",
                "darknet",
                "--out",
                str(tmp_path / "file" / "a.weights"),
            ],
            "is not a folder",
        ),
        (["--weights", "nothing", "--format", "onnx"], "--weights nothing"),
    ):
        assert mistake(arguments, monkeypatch, capsys).count(words) == 1, words


def test_missing_packages_are_named(trained: Result, tmp_path: Path, monkeypatch, capsys) -> None:
    arguments = [
        "--weights",
        str(trained.run),
        "--format",
        "onnx",
        "--out",
        str(tmp_path / "a.onnx"),
    ]
    for package in ("onnxscript", "onnx"):
        monkeypatch.setitem(sys.modules, package, None)
        assert f"{package} is not installed: pip install {package}" in mistake(
            arguments, monkeypatch, capsys
        )


def mistake(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> str:
    monkeypatch.setattr(sys, "argv", ["export.py", *arguments])
    with pytest.raises(SystemExit) as end:
        run_command(export_cli.main)
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
    return error
