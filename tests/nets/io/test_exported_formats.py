"""Exported files of all formats: what they say about themselves, and what they compute."""

import io
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from nets import load_model
from nets.inference.backends.selection import FixedBatch
from nets.io.exported import unpack, work_folder
from nets.io.formats import FORMATS
from nets.yolo.yolov4_tiny import YOLOv4Tiny, build_model
from utils.core.config import make_config
from utils.core.errors import UserError
from utils.core.inputs import hash_files
from utils.core.schema import Config
from utils.engine import export as export_module
from utils.engine.evaluation import evaluate_weights
from utils.engine.experiment import Result
from utils.engine.export import ExportOptions, Tolerance, export

NAMES = ("cat", "Hündin")
CANVASES = torch.randint(
    0, 256, (3, 64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)
NEEDS = {  # what a format's conversion imports, and its backend
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
    "ncnn": ("pnnx", "ncnn"),
    "tflite": ("litert_torch", "ai_edge_litert"),
}


@pytest.fixture(scope="module", params=[3], ids=["three heads"])
def network(request: pytest.FixtureRequest) -> tuple[YOLOv4Tiny, Config]:
    config = make_config({"phi": "se", "input_size": [64, 96], "model": {"heads": request.param}})
    return build_model(config, len(NAMES)).eval(), config


@pytest.fixture(scope="module")
def traced(network: tuple[YOLOv4Tiny, Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("traced") / "a.torchscript"
    FORMATS[".torchscript"].write(*network, NAMES, path)
    return path


def expected(network: YOLOv4Tiny) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return network.coder(network(CANVASES.permute(0, 3, 1, 2).float() / 255))


def assert_same(found: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor]) -> None:
    torch.testing.assert_close(found[0], wanted[0], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(found[1], wanted[1], atol=1e-5, rtol=1e-4)


def test_a_torchscript_file_is_a_whole_detector(
    network: tuple[YOLOv4Tiny, Config], traced: Path
) -> None:
    detector = load_model(traced)
    assert detector.names == NAMES and detector.config.model == network[1].model
    assert_same(detector.backend(CANVASES), expected(network[0]))
    assert detector(np.zeros((50, 70, 3), np.uint8)).width == 70
    with pytest.raises(UserError, match="input_size is fixed in a TorchScript file"):
        load_model(traced, input_size=128)
    with pytest.raises(UserError, match=r"cannot run .*expected torch"):
        _ = load_model(traced, backend="compile").backend
    with pytest.raises(UserError, match=r"precision=bf16: .*a\.torchscript computes in fp32"):
        _ = load_model(traced, precision="bf16").backend


@pytest.mark.parametrize("suffix", [".torchscript", ".tflite"])
def test_files_of_others_are_refused(suffix: str, tmp_path: Path) -> None:
    other, text = tmp_path / f"other{suffix}", tmp_path / f"text{suffix}"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("other/metadata.json", "{}")
    other.write_bytes(b"TFL3" + archive.getvalue())
    text.write_text("no model")
    with pytest.raises(UserError, match=rf"other\{suffix}: ") as caught:
        load_model(other)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=rf"text\{suffix}: not readable as T"):
        load_model(text)


def test_ncnn_files_need_their_metadata(tmp_path: Path) -> None:
    (tmp_path / "a.param").touch()
    with pytest.raises(UserError, match=r"a\.bin: no such file"):
        load_model(tmp_path / "a.param")
    (tmp_path / "a.bin").touch()
    with pytest.raises(UserError, match=r"a\.metadata\.json: no such file"):
        load_model(tmp_path / "a.param")
    (tmp_path / "a.metadata.json").write_text('{"names": 3}')
    with pytest.raises(UserError, match=r"a\.metadata\.json: names: expected a valid string"):
        load_model(tmp_path / "a.param")


def test_files_of_two_exports_are_refused(tmp_path: Path) -> None:
    for name in ("a.param", "a.bin"):
        (tmp_path / name).write_text("same shape")
    metadata = tmp_path / "a.metadata.json"
    digest = hash_files([tmp_path / "a.param", tmp_path / "a.bin"])
    metadata.write_text(json.dumps({"sha256": digest}))
    with pytest.raises(UserError, match=r"a\.param: no config in its metadata"):
        load_model(tmp_path / "a.param")
    (tmp_path / "a.bin").write_text("other data")
    with pytest.raises(UserError, match=r"a\.metadata\.json: does not belong to a\.param and a\.b"):
        load_model(tmp_path / "a.param")


class Pairs:
    """A backend that takes two images per call, and returns the first value of each."""

    name, precision = "pairs", "fp32"

    def __call__(self, canvases: Tensor) -> tuple[Tensor, Tensor]:
        assert len(canvases) == 2
        values = canvases[:, 0, 0, :1].float()
        return values, values


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_fixed_batch_takes_any_number(count: int) -> None:
    canvases = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 4, 4, 3)
    boxes, scores = FixedBatch(Pairs(), 2)(canvases)
    assert boxes.flatten().tolist() == scores.flatten().tolist() == list(range(count))


def test_detections_become_boxes_and_scores() -> None:
    detections = np.array([[[1, 2, 3, 4, 0.5, 1], [0, 0, 0, 0, 0, 0]]], np.float32)
    boxes, scores = unpack([detections], 2)
    assert boxes.tolist() == [[[1, 2, 3, 4], [0, 0, 0, 0]]]
    assert scores.tolist() == [[[0, 0.5], [0, 0]]]


def test_a_file_with_other_results_does_not_stay(
    trained: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "new" / "a.torchscript"
    monkeypatch.setattr(export_module, "FLOAT32", Tolerance(-1.0, -1.0))
    with pytest.raises(UserError, match="gives different results, and was removed: boxes differ"):
        export(str(trained.run), "torchscript", str(out))
    assert not list(out.parent.iterdir())
    monkeypatch.undo()
    changes = {"predict.score": 0.4}
    lines = export(str(trained.run), "torchscript", str(out), size=[96], changes=changes)
    assert load_model(out).config.predict.score == 0.4
    assert "(N, 3, 96, 96)" in lines[1] and "PyTorch on validation images" in lines[2]
    assert list(out.parent.iterdir()) == [out]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    named = pytest.raises(UserError, match=r"cannot write .*file/a\.xml: ")
    with named, work_folder(tmp_path / "file" / "a.xml"):
        pass
    with work_folder(tmp_path / "new" / "a.xml") as folder:
        assert folder.parent == tmp_path / "new"
    assert not list((tmp_path / "new").iterdir())


def test_files_of_another_export_are_not_overwritten(trained: Result, tmp_path: Path) -> None:
    (tmp_path / "a.xml").touch()
    with pytest.raises(UserError, match=r"a\.param: .*a\.bin belongs to .*a\.xml: give another"):
        export(str(trained.run), "ncnn", str(tmp_path / "a.param"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("onnx", ExportOptions(opset=12, batch=2)),
        ("openvino", ExportOptions(half=True)),
        ("ncnn", ExportOptions()),
        ("tflite", ExportOptions()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_gives_what_the_run_gives(
    kind: str, options: ExportOptions, trained: Result, tmp_path: Path, capsys
) -> None:
    for package in NEEDS[kind]:
        pytest.importorskip(package)
    path = tmp_path / f"a{export_module.SUFFIXES[kind]}"
    lines = export(str(trained.run), kind, str(path), options)
    assert "on validation images: largest difference" in lines[-1]
    detector = load_model(path, precision="fp32", device="cpu")
    reference = load_model(trained.run, precision="fp32", device="cpu")
    assert detector.names == reference.names
    canvases = CANVASES[:, :64, :64]
    tolerance = 0.05 if options.half else 1e-3
    for found, wanted in zip(detector.backend(canvases), reference.backend(canvases), strict=True):
        torch.testing.assert_close(found, wanted, atol=tolerance, rtol=1e-4)
    evaluation = evaluate_weights(str(path), changes={"device": "cpu", "precision": "fp32"})
    ours, theirs = evaluation.metrics.map50_95, trained.evaluation.metrics.map50_95
    assert ours == pytest.approx(theirs, abs=1e-3)


@pytest.mark.slow
def test_an_int8_file_loses_the_ap_that_is_printed(trained: Result, tmp_path: Path) -> None:
    for package in (*NEEDS["openvino"], "nncf"):
        pytest.importorskip(package)
    path = tmp_path / "a.xml"
    lines = export(str(trained.run), "openvino", str(path), ExportOptions(int8=True, batch=3))
    assert "images (3, 3, 64, 64)" in lines[1]
    found = re.search(r"AP ([\d.]+), ([\d.]+) before: ([-+][\d.]+) AP lost", lines[2])
    assert found
    after, before, lost = map(float, found.groups())
    exact, quantized = (
        evaluate_weights(str(weights), changes={"device": "cpu", "precision": precision})
        for weights, precision in ((trained.run, "fp32"), (path, "int8"))
    )
    detector = load_model(path)
    assert detector.backend.precision == "int8"
    reference = load_model(trained.run, device="cpu", precision="fp32").backend
    canvases = CANVASES[:2, :64, :64]
    difference = detector.backend(canvases)[1] - reference(canvases)[1]
    assert 0 < difference.abs().max() < 0.05
    assert after == pytest.approx(100 * quantized.metrics.map50_95, abs=0.006)
    assert before == pytest.approx(100 * exact.metrics.map50_95, abs=0.006)
    assert lost == pytest.approx(before - after, abs=0.011) and abs(lost) < 10
    float32 = 4 * sum(value.numel() for value in load_model(trained.run).network.parameters())
    assert path.with_suffix(".bin").stat().st_size < 0.3 * float32


@pytest.mark.slow
def test_onnx_with_nms_detects_what_the_detector_does(trained: Result, tmp_path: Path) -> None:
    for package in NEEDS["onnx"]:
        pytest.importorskip(package)
    import onnxruntime

    path = tmp_path / "a.onnx"
    lines = export(str(trained.run), "onnx", str(path), ExportOptions(nms=True, half=True, batch=1))
    assert "detections (1, K, 6)" in lines[1]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["detections"]
    # the file keeps the limits of its export
    reference = load_model(trained.run, {"predict.vote_iou": 1.0}, precision="fp32", device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    ours, theirs = load_model(path)(image), reference(image)
    np.testing.assert_array_equal(ours.labels, theirs.labels)
    np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=0.1)
