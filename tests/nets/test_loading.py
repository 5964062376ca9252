"""From a file or a run's folder to a detector."""

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from nets import load_model
from nets.io import checkpoints
from nets.io.exported import ExportedFile
from nets.io.formats import FORMATS
from nets.io.torchscript import write_torchscript
from nets.yolo.box_coder import DARKNET
from nets.yolo.yolov4_tiny import build_model
from utils.core.config import update_config
from utils.core.errors import UserError
from utils.core.schema import Config
from utils.engine.experiment import Result


def test_a_run_its_best_weights_and_its_settings(trained: Result):
    saved = checkpoints.load(trained.run / "best.pt")
    for path in (trained.run, str(trained.run), trained.run / "best.pt"):
        detector = load_model(path)
        assert all(
            torch.equal(saved["model"][name], value)
            for name, value in detector.network.state_dict().items()
        )
        assert detector.names == tuple(saved["names"]) and detector.input_size == (64, 64)
        assert detector.network.coder.anchors.tolist() == saved["anchors"]
        assert not detector.network.training


def test_a_renamed_checkpoint_is_still_ours(trained: Result, tmp_path: Path):
    renamed = tmp_path / "weights.pth"
    renamed.write_bytes((trained.run / "best.pt").read_bytes())
    detector = load_model(renamed)
    assert detector.names == load_model(trained.run).names
    assert detector.network.coder.anchors.tolist() != [
        list(anchor) for anchor in DARKNET[2].anchors
    ]


def test_settings_can_be_changed(trained: Result):
    detector = load_model(
        trained.run, {"eval.nms_iou": 0.3}, input_size=[96, 32], precision="bf16", device=None
    )
    assert (
        detector.input_size == (96, 32)
        and detector.precision == "bf16"
        and detector.config.eval.nms_iou == 0.3
    )
    assert detector.config.device == "cpu"
    image = np.zeros((20, 30, 3), np.uint8)
    assert detector(image).width == 30


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"device": torch.device("cpu")}, {"device": "cpu"}),
        ({"input_size": np.int64(96)}, {"input_size": (96, 96)}),
        ({"input_size": np.array([96, 32])}, {"input_size": (96, 32)}),
        ({"predict.score": np.float64(0.5)}, {"predict": {"score": 0.5}}),
        ({"output": Path("elsewhere")}, {"output": "elsewhere"}),
        ({"predict": {"score": np.float32(0.5)}}, {"predict": {"score": 0.5}}),
    ],
)
def test_values_of_other_libraries_are_settings(
    changes: dict[str, object], expected: dict[str, object], trained: Result
):
    config = load_model(trained.run, **changes).config
    assert config == update_config(load_model(trained.run).config, expected)
    with pytest.raises(UserError, match=r"device: expected a number, text, .* got <object"):
        load_model(trained.run, {"device": object()})


def test_attention_comes_with_the_weights(tmp_path: Path):
    config = Config(phi={"feat1": "eca", "feat2": {"name": "cbam", "reduction": 4}}, device="cpu")
    network = build_model(config, 3)
    checkpoints.save(tmp_path / "a.pt", checkpoints.describe(network, config, ["a", "b", "c"]))
    loaded = load_model(tmp_path / "a.pt").network
    assert set(loaded.attention) == {"feat1", "feat2"}
    images = torch.rand(1, 3, 64, 64)
    assert all(map(torch.allclose, network.eval()(images), loaded(images)))


def test_darknet_weights_bring_their_own_conventions(darknet_file: Callable[[int], Path]):
    detector = load_model(darknet_file(80), precision="fp32", device="cpu")
    coder = detector.network.coder
    assert (coder.new_coords, coder.scale_x_y) == (False, 1.05)
    np.testing.assert_allclose(coder.anchors.numpy(), DARKNET[2].anchors)
    assert (
        len(detector.names) == 80
        and detector.names[0] == "person"
        and detector.names[-1] == "toothbrush"
    )
    assert load_model(darknet_file(20)).names[0] == "aeroplane"


def test_reference_weights_tell_their_phi(tmp_path: Path):
    for phi in ("none", "se", "cbam", "eca", "ca"):
        network = build_model(Config(phi=phi), 4)
        path = tmp_path / f"{phi}.pth"
        torch.save(network.state_dict(), path)
        detector = load_model(path, device="cpu")
        assert detector.config.phi == phi and len(detector.names) == 4
        assert (detector.network.coder.new_coords, detector.network.coder.scale_x_y) == (False, 1.0)
    own = ["螺栓", "螺母", "垫圈", "销"]
    assert load_model(path, {"data.classes": own}, device="cpu").names == tuple(own)
    assert load_model(path, {"data.classes": own[:2]}, device="cpu").names[0] == "class 0"


def damaged(path: Path) -> Path:
    checkpoints.save(path, {"model": {"a": torch.zeros(1000)}})
    path.write_bytes(path.read_bytes()[:-900])
    return path


def backbone_only(path: Path) -> Path:
    torch.save({"backbone.stem1.conv.weight": torch.zeros(32, 3, 3, 3)}, path)
    return path


def unknown(path: Path) -> Path:
    path.write_text("hello")
    return path


@pytest.mark.parametrize(
    ("make", "name", "words"),
    [
        (lambda path: path, "none.pt", r"none\.pt: no such file"),
        (damaged, "cut.pt", r"cut\.pt: not readable"),
        (unknown, "text.pt", r"text\.pt: not readable"),
        (unknown, "text.weights", r"text\.weights"),
        (unknown, "text.bin", r"expected \.pt"),
        (backbone_only, "backbone.pth", "backbone only"),
        (backbone_only, "foreign.pt", "not a checkpoint of this project"),
    ],
)
def test_what_is_no_weights_file(
    make: Callable[[Path], Path], name: str, words: str, tmp_path: Path
):
    with pytest.raises(UserError, match=words) as caught:
        load_model(make(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_overrides_that_do_not_fit_the_weights(trained: Result):
    with pytest.raises(UserError, match=r"did you mean 'eval\.nms_iou'"):
        load_model(trained.run, {"eval.nms_iu": 0.3})
    with pytest.raises(UserError, match=r"best\.pt: .*do not fit the network that phi"):
        load_model(trained.run, phi="cbam")


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"predict.score": 0.05}, "predict.score=0.05"),
        ({"predict.nms_iou": 0.9}, "predict.nms_iou=0.9"),
        ({"predict.max_detections": 1000}, "predict.max_detections=1000"),
        ({"eval.score": 0.0}, "eval.score=0.0"),
        ({"predict": {"score": 0.5, "nms_iou": 0.1, "max_detections": 3}}, ""),
        ({"eval.score": 0.5, "eval.batch_size": 3}, ""),
    ],
)
def test_the_limits_inside_a_file_can_only_become_stricter(
    changes: dict[str, object], refused: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "a.torchscript"
    path.touch()
    anchors = [list(anchor) for anchor in DARKNET[2].anchors]
    saved = ExportedFile(path, Config(), ("a", "b"), anchors, has_nms=True)
    ends_with_nms = dataclasses.replace(FORMATS[path.suffix], read=lambda _: saved)
    monkeypatch.setitem(FORMATS, path.suffix, ends_with_nms)
    words = f"{refused}: the file ends with NMS by its own limits"
    with pytest.raises(UserError, match=words) if refused else nullcontext():
        load_model(path, changes)


def test_a_file_with_a_users_block_that_needs_values(tmp_path: Path):
    config = Config(phi={"feat1": "tests.nets.attention.user_blocks:Values"}, input_size=(64, 64))
    path = tmp_path / "a.torchscript"
    write_torchscript(build_model(config, 2), config, ("a", "b"), path)
    assert load_model(path)(np.zeros((20, 30, 3), np.uint8)).width == 30


def test_importing_detections_loads_no_runtime():
    code = """
import sys
import nets.inference.detections
print([name for name in ("torch", "onnxruntime", "openvino", "cv2") if name in sys.modules])
"""
    project = Path(__file__).resolve().parents[2]
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
