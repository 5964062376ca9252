"""A network with three heads, `model.heads=3`: trained, run, exported, explained."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from nets import load_model
from nets.io.weights import choose_model_config, load_weights, read_weights
from nets.yolo.yolov4_tiny import YOLOv4Tiny, build_model
from utils.core.config import load_config, make_config
from utils.core.errors import UserError
from utils.core.schema import ModelConfig
from utils.engine.experiment import Result, resume, train
from utils.engine.explanation import Focus, explain
from utils.engine.export import export
from utils.engine.runs import BEST

CELLS = 3 * (2 * 2 + 4 * 4 + 8 * 8)  # predictions at 64x64
ADDED = {"reduce8", "head8", "predict8"}


@pytest.fixture(scope="module")
def three(trained: Result, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A finished training like `trained`."""
    output = tmp_path_factory.mktemp("runs")
    overrides = {"output": str(output), "name": "three", "model.heads": 3}
    return train(load_config(trained.run / "config.yaml", overrides))


@pytest.fixture
def canvases() -> torch.Tensor:
    return torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)


def network_with(heads: int, classes: int = 6) -> YOLOv4Tiny:
    return build_model(make_config({"model": {"heads": heads}}), classes)


def modules_of(names: list[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def test_a_training_keeps_its_three_heads(three: Result, canvases: torch.Tensor) -> None:
    detector = load_model(three.run, precision="fp32", device="cpu")
    coder = detector.network.coder
    assert coder.strides == (32, 16, 8) and coder.anchors.shape == (9, 2)
    areas = coder.anchors.prod(1)
    assert (areas.diff() >= 0).all(), "the smallest anchors belong to the finest map"
    boxes, scores = detector.backend(canvases)
    assert boxes.shape == (2, CELLS, 4) and scores.shape == (2, CELLS, 6)
    metrics = json.loads((three.run / "metrics.json").read_text())
    assert metrics["params"] == sum(p.numel() for p in detector.network.parameters())
    start = network_with(3).predict8.weight
    assert not torch.equal(detector.network.predict8.weight, start)


def test_a_training_can_be_prolonged(three: Result, tmp_path: Path) -> None:
    copy = tmp_path / "runs" / "three"
    copy.mkdir(parents=True)
    for path in three.run.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    resume(copy, {"train.epochs": 3})
    assert load_model(copy / "last.pt").config.model.heads == 3


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_every_backend_gives_the_same(
    backend: str, three: Result, canvases: torch.Tensor, tmp_path: Path
) -> None:
    for package in ("onnx", "onnxscript", backend):
        if not importlib.util.find_spec(package):
            pytest.skip(f"needs {package}: pip install {package}")
    expected = load_model(three.run, precision="fp32", device="cpu").backend(canvases)
    path = tmp_path / "a.onnx"
    export(str(three.run), "onnx", str(path))
    for source in (three.run, path):
        got = load_model(source, backend=backend, precision="fp32", device="cpu").backend(canvases)
        for ours, theirs in zip(got, expected, strict=True):
            assert ours.shape == theirs.shape
            torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)
    with pytest.raises(UserError, match=r"a\.onnx: model is fixed in an ONNX file"):
        load_model(path, {"model.heads": 2}, backend=backend)


def test_darknet_files_give_back_every_bit(
    three: Result, canvases: torch.Tensor, tmp_path: Path
) -> None:
    first, second = tmp_path / "a.weights", tmp_path / "b.weights"
    export(str(three.run), "darknet", str(first))
    export(str(first), "darknet", str(second))
    assert first.read_bytes() == second.read_bytes()
    assert first.with_suffix(".cfg").read_text() == second.with_suffix(".cfg").read_text()
    original = load_model(three.run, precision="fp32", device="cpu")
    read = load_model(first, precision="fp32", device="cpu")
    assert read.network.coder.masks == original.network.coder.masks
    for ours, theirs in zip(read.backend(canvases), original.backend(canvases), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)


def test_the_outputs_of_the_backbone_are_explained(three: Result) -> None:
    detector = load_model(three.run, {"predict.score": 1e-6}, device="cpu", precision="fp32")
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    assert set(explain(detector, image, Focus()).sheets) == {"feat0", "feat1", "feat2"}
    assert set(explain(detector, image, Focus(site="head8")).sheets) == {"head8"}


@pytest.mark.parametrize(("heads", "wanted"), [(2, 3), (3, 2)])
def test_weights_do_not_change_the_number_of_heads(
    heads: int, wanted: int, three: Result, trained: Result
) -> None:
    """What both networks have is loaded; the rest is told."""
    run = {2: trained, 3: three}[heads].run
    weights = read_weights(run / BEST)
    requested = ModelConfig(heads=wanted)
    assert choose_model_config(requested, 6, weights) is requested
    network = network_with(wanted)
    report = load_weights(network, weights)
    own = network.state_dict()
    assert all(torch.equal(own[name], weights.tensors[name]) for name in report.matched)
    assert not report.mismatched
    assert modules_of(report.missing) == (ADDED if wanted == 3 else set())
    assert modules_of(report.unexpected) == (ADDED if wanted == 2 else set())
    assert modules_of(report.matched) == {
        *("backbone", "neck", "head32", "head16", "predict32", "predict16")
    }


def test_weights_of_three_heads_bring_their_coder(three: Result) -> None:
    weights = read_weights(three.run / BEST)
    model = choose_model_config(ModelConfig(heads=3), 6, weights)
    anchors = load_model(three.run).network.coder.anchors
    assert model.heads == 3 and torch.equal(torch.tensor(model.anchors), anchors)


@pytest.mark.parametrize("heads", [2, 3])
def test_a_run_cannot_be_opened_with_other_heads(
    heads: int, three: Result, trained: Result
) -> None:
    run, other = {2: trained, 3: three}[heads].run, 5 - heads
    with pytest.raises(UserError) as caught:
        load_model(run, {"model.heads": other})
    message = f"anchors: expected {3 * other} for model.heads={other}, got {3 * heads}"
    assert message in str(caught.value) and str(run) in str(caught.value)


def test_the_references_weights_have_two_heads(tmp_path: Path) -> None:
    """A bare state dictionary does not say which anchors its heads have."""
    path = tmp_path / "three.pth"
    torch.save(network_with(3).state_dict(), path)
    with pytest.raises(UserError, match=r"three\.pth: .* do not fit the network .*reduce8"):
        load_model(path)
    report = load_weights(network_with(3), read_weights(path))
    assert len(report.matched) == report.total and not report.missing


@pytest.mark.parametrize("assign", ["best", "iou", "aligned"])
def test_every_rule_of_assignment_trains(assign: str, tiny: Callable) -> None:
    config = tiny("model.heads=3", f"loss.assign={assign}", "train.epochs=1", "phi={head8: eca}")
    assert (train(config).run / BEST).is_file()
