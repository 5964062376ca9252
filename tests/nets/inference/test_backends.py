"""Every backend gives what PyTorch gives: tensors, detections, AP; and what cannot run says so."""

import importlib.util
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from nets import Detector, load_model
from nets.inference.backends import (
    ModelSpec,
    choose_device,
    choose_precision,
    selection,
)
from nets.inference.backends.onnxruntime_backend import OnnxRuntimeBackend
from nets.inference.backends.torch_backend import CompiledBackend
from nets.inference.detections import Detections
from nets.io.exported import ExportedFile
from nets.yolo.yolov4_tiny import build_model
from tests.packages import skip_without
from utils.core.config import make_config
from utils.core.errors import UserError
from utils.data.dataset import DetectionDataset
from utils.engine.datasets import open_dataset
from utils.engine.detectors import open_detector
from utils.engine.evaluation import detect_dataset, evaluate_weights
from utils.engine.experiment import Result
from utils.metrics import evaluate

CPU = torch.device("cpu")
NEEDS = {
    "torch": [],
    "compile": [],
    "onnxruntime": ["onnx", "onnxscript", "onnxruntime"],
    "openvino": ["onnx", "onnxscript", "openvino"],
}
ENGINES = [
    pytest.param("compile", marks=pytest.mark.slow),
    "onnxruntime",
    "openvino",
]


def detector_for(trained: Result, backend: str, precision: str = "fp32") -> Detector:
    skip_without(*NEEDS[backend])
    return load_model(
        trained.run, {"eval.batch_size": 3, "eval.score": 0.0}, backend=backend, precision=precision
    )


@pytest.fixture(scope="module")
def reference(trained: Result) -> Detector:
    return detector_for(trained, "torch")


@pytest.fixture(scope="module")
def dataset(reference: Detector) -> DetectionDataset:
    return open_dataset(reference.config, "val")


@pytest.fixture(scope="module")
def expected(reference: Detector, dataset: DetectionDataset) -> list[Detections]:
    return detect_dataset(reference, dataset, progress=False)


def ap(found: list[Detections], expected: list[Detections], dataset: DetectionDataset) -> float:
    """AP against PyTorch's best five detections: after two epochs no real object is found."""
    truth = [
        replace(
            sample,
            boxes=one.boxes[:5],
            labels=one.labels[:5],
            difficult=np.zeros(len(one.labels[:5]), bool),
            crowd=np.zeros(len(one.labels[:5]), bool),
        )
        for sample, one in zip(dataset.samples, expected, strict=True)
    ]
    return evaluate(truth, found, found[0].names).map50_95 or 0.0


def test_the_torch_backend_is_the_network_and_its_coder(reference: Detector) -> None:
    canvases = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    images = canvases.permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        boxes, scores = reference.network.coder(reference.network(images))
    got_boxes, got_scores = reference.backend(canvases)
    torch.testing.assert_close(got_boxes, boxes, atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(got_scores, scores, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_backend_gives_what_torch_gives(
    engine: str,
    trained: Result,
    reference: Detector,
    dataset: DetectionDataset,
    expected: list[Detections],
) -> None:
    detector = detector_for(trained, engine)
    for count in (1, 3):
        canvases = torch.randint(0, 256, (count, 64, 64, 3), dtype=torch.uint8)
        (boxes, scores), (wanted_boxes, wanted_scores) = (
            detector.backend(canvases),
            reference.backend(canvases),
        )
        assert boxes.dtype == scores.dtype == torch.float32
        torch.testing.assert_close(
            boxes, wanted_boxes, atol=1e-4, rtol=0
        )  # swapped colors move them by 1e-3
        torch.testing.assert_close(scores, wanted_scores, atol=1e-6, rtol=1e-5)
    assert (detector.backend.name, detector.backend.precision) == (engine, "fp32")
    found = detect_dataset(detector, dataset, progress=False)
    mine, theirs = ap(found, expected, dataset), ap(expected, expected, dataset)
    assert theirs > 0.3 and mine == pytest.approx(theirs, abs=1e-3)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_bf16_is_near(engine: str, trained: Result, reference: Detector) -> None:
    canvases = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    detector = detector_for(trained, engine, "bf16")
    (boxes, scores), (exact_boxes, exact_scores) = (
        detector.backend(canvases),
        reference.backend(canvases),
    )
    assert boxes.dtype == scores.dtype == torch.float32 and detector.precision == "bf16"
    assert (boxes - exact_boxes).abs().max() < 2 and (scores - exact_scores).abs().max() < 0.02
    assert engine == "openvino" or not torch.equal(
        boxes, exact_boxes
    )  # OpenVINO stays in fp32 on a CPU without


def test_an_onnx_file_is_a_whole_detector(
    trained: Result, reference: Detector, tmp_path: Path
) -> None:
    skip_without(*NEEDS["onnxruntime"])
    file = detector_for(trained, "onnxruntime").model_spec.file(".onnx")
    assert file.parent == trained.run / ".cache" / "models", "exported once, beside the weights"
    loaded = load_model(file, {"predict.score": 0.0})
    assert loaded.names == reference.names and loaded.input_size == (64, 64)
    assert loaded.network.coder.masks == reference.network.coder.masks
    image = np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    mine, theirs = loaded(image), reference(image, loaded.config.predict)
    np.testing.assert_allclose(mine.boxes, theirs.boxes, atol=0.05)
    np.testing.assert_allclose(mine.scores, theirs.scores, atol=1e-5)

    for changes, words in (
        ({"input_size": 96}, "input_size is fixed in an ONNX file"),
        ({"phi": "se"}, "phi is fixed"),
    ):
        with pytest.raises(UserError, match=words):
            load_model(file, **changes)
    with pytest.raises(
        UserError, match=r"backend=torch: cannot run .*expected onnxruntime or openvino"
    ):
        _ = load_model(file, backend="torch").backend
    evaluation = evaluate_weights(str(file), json_path=str(tmp_path / "n.json"))
    assert evaluation.metrics.map50 == pytest.approx(trained.evaluation.metrics.map50, abs=1e-3)


def test_openvino_reads_the_metadata_where_onnxruntime_is_missing(
    trained: Result, reference: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = detector_for(trained, "openvino").model_spec.file(".onnx")
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else real(name)
    )
    loaded = load_model(file)
    assert (loaded.backend.name, loaded.names) == ("openvino", reference.names)


def test_onnx_files_of_others_are_refused(tmp_path: Path) -> None:
    skip_without("onnx", "onnxruntime")
    import onnx

    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value], [value]
    )
    graph.output[0].name = "y"
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "other.onnx"
    )
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(UserError, match=r"other\.onnx: no config in its metadata"):
        load_model(tmp_path / "other.onnx")
    with pytest.raises(UserError, match=r"text\.onnx: not readable as ONNX"):
        load_model(tmp_path / "text.onnx")


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_missing_package_is_named(
    engine: str, trained: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, engine, None)
    with pytest.raises(
        UserError, match=f"backend={engine}: {engine} is not installed: pip install {engine}"
    ):
        load_model(trained.run, backend=engine)


def test_precisions_and_devices() -> None:
    skip_without("openvino", "onnxruntime")
    assert choose_precision("onnxruntime", "auto", CPU) == "fp32"
    assert (
        choose_precision("openvino", "int8", CPU) == choose_precision("auto", "int8", CPU) == "int8"
    )
    with pytest.raises(
        UserError, match=r"precision=int8: backend=torch computes in fp32, bf16, fp16; .*openvino"
    ):
        choose_precision("torch", "int8", CPU)
    with pytest.raises(UserError, match="precision=bf16: backend=onnxruntime computes in fp32"):
        choose_precision("onnxruntime", "bf16", CPU)
    assert choose_device("openvino", "auto") == CPU
    with pytest.raises(UserError, match="cuda"):
        choose_device("openvino", "cuda:7")
    with pytest.raises(UserError, match="backend=onnx: unknown; did you mean 'onnxruntime'"):
        choose_device("onnx", "auto")
    with pytest.raises(UserError, match="backend=tensorrt: unknown; "):
        choose_device("tensorrt", "auto")


def test_onnxruntime_that_falls_back_to_the_cpu_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    skip_without("onnxruntime")
    import onnxruntime

    session = SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: session)
    config = make_config({"input_size": 64})
    exported = ExportedFile(tmp_path / "a.onnx", config, ("a", "b"), [])
    spec = ModelSpec(build_model(config, 2), config, exported.names, exported)
    OnnxRuntimeBackend(spec, "fp32", CPU)
    with pytest.raises(UserError, match="device=cuda: ONNX Runtime cannot use CUDA here"):
        OnnxRuntimeBackend(spec, "fp32", torch.device("cuda"))


def test_inference_mode_does_not_compile_again(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[object] = []

    def count(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        compiled.append(graph)
        return graph.forward

    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **_: real(function, backend=count))
    config = make_config({"input_size": 64})
    spec = ModelSpec(build_model(config, 2), config, ("a", "b"))
    backend = CompiledBackend(spec, "fp32", CPU)
    canvases = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    backend(canvases)
    once = len(compiled)
    with torch.inference_mode():
        backend(canvases)
        backend(canvases.clone())
    assert len(compiled) == once > 0


class Fake:
    """A backend that takes so many seconds."""

    def __init__(self, name: str, seconds: float) -> None:
        self.name, self.precision, self.seconds = name, "fp32", seconds

    def __call__(self, canvases: Tensor) -> tuple[Tensor, Tensor]:
        time.sleep(self.seconds)
        return torch.zeros(1, 1, 4), torch.zeros(1, 1, 1)


def test_auto_takes_the_fastest_that_works(
    trained: Result, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def refuse(*arguments: object) -> Fake:
        raise UserError("not on this machine")

    makers: dict[str, Callable[..., Fake]] = {
        "torch": lambda *_: Fake("torch", 0.02),
        "compile": refuse,
        "onnxruntime": lambda *_: Fake("onnxruntime", 0.004),
        "openvino": lambda *_: Fake("openvino", 0.05),
    }
    monkeypatch.setattr(selection, "MAKERS", makers)
    monkeypatch.setattr(selection, "SECONDS", 0.02)
    monkeypatch.setattr(selection, "choose_device", lambda *_: CPU)
    detector = load_model(trained.run, backend="auto")
    assert detector.backend.name == "onnxruntime" and detector.backend is detector.backend
    shown = capsys.readouterr().err
    assert (
        "fastest here: backend=onnxruntime" in shown
        and "not on this machine" in shown
        and "ms per image" in shown
    )
    monkeypatch.setattr(selection, "MAKERS", dict.fromkeys(makers, refuse))
    with pytest.raises(
        UserError, match="backend=auto: none works here: torch: not on this machine"
    ):
        _ = load_model(trained.run, backend="auto").backend


def test_weights_are_told_apart_in_the_cache(reference: Detector) -> None:
    source = ModelSpec(reference.network, reference.config, reference.names)
    other = reference.config.model_copy(update={"input_size": (96, 96)})
    assert (
        source.fingerprint
        == ModelSpec(reference.network, reference.config, reference.names).fingerprint
    )
    assert source.fingerprint != ModelSpec(reference.network, other, reference.names).fingerprint
    network = type(reference.network)(3, reference.network.coder)
    assert source.fingerprint != ModelSpec(network, reference.config, reference.names).fingerprint


def test_int8_needs_images(trained: Result) -> None:
    skip_without("openvino", "nncf", *NEEDS["openvino"])
    with pytest.raises(UserError, match="precision=int8: no images to calibrate on"):
        _ = load_model(trained.run, backend="openvino", precision="int8").backend


@pytest.mark.slow
def test_int8_is_calibrated_once_and_its_loss_is_printed(
    trained: Result, tmp_path: Path, reference: Detector, dataset: DetectionDataset, capsys
) -> None:
    skip_without("openvino", "nncf", *NEEDS["openvino"])
    weights = tmp_path / "copy.pt"
    weights.write_bytes((trained.run / "best.pt").read_bytes())
    evaluate_weights(str(weights), changes={"backend": "openvino", "precision": "int8"})
    assert "with openvino int8" in capsys.readouterr().out
    assert list((tmp_path / ".cache" / "models").glob("copy-*-int8.xml"))
    again = load_model(weights, backend="openvino", precision="int8")  # has no images of its own
    canvases = torch.from_numpy(dataset.canvases(range(4)))
    (boxes, scores), (exact_boxes, exact_scores) = (
        again.backend(canvases),
        reference.backend(canvases),
    )
    assert (
        0.001 < (boxes - exact_boxes).abs().max() < 4
        and 0 < (scores - exact_scores).abs().max() < 0.05
    )


def test_command_lines_bring_training_images(trained: Result) -> None:
    detector = open_detector(trained.run)
    assert detector.model_spec.calibration is not None
    canvases = detector.model_spec.calibration()
    training = open_dataset(detector.config, "train")
    assert canvases.shape == (16, 64, 64, 3) and canvases.dtype == np.uint8
    assert (canvases == training.canvases(range(16))).all()


@pytest.mark.parametrize(("side", "refused"), [(64, False), (96, True)])
def test_a_file_of_another_input_size_is_refused(side: int, refused: bool) -> None:
    config = make_config({"input_size": side})
    network = build_model(config, 2)
    exported = ExportedFile(Path("a.param"), config, ("a", "b"), [])
    spec = ModelSpec(network, config, exported.names, exported)
    count = 3 * (2 * 2 + 4 * 4)  # of 64x64
    outputs = torch.zeros(1, count, 4), torch.zeros(1, count, 2)
    message = r"a\.param.*\(1, 60, 4\).*expected \(B, 135, 4\)"
    with pytest.raises(UserError, match=message) if refused else nullcontext():
        spec.check_outputs(*outputs)
