"""Weights in PyTorch files: our own checkpoints, what is reported, what is refused."""

from pathlib import Path

import pytest
import torch
from old_files import with_old_keys

from nets import load_model
from nets.io import checkpoints
from nets.io.weights import MatchReport, choose_model_config, load_weights, read_weights
from nets.yolo.yolov4_tiny import YOLOv4Tiny, build_model
from tests.nets.io.cat_dog_checkpoint import ANCHORS, save_checkpoint
from utils.core.config import make_config
from utils.core.errors import UserError
from utils.core.schema import ModelConfig


def test_report_lines_name_a_few_and_count_the_rest() -> None:
    report = MatchReport(Path("w.pth"), ["a", "b"], 8, ["c: (1,), here (2,)"], list("defgh"), [])
    assert report.lines() == [
        "w.pth: 2 of 8 pretrained tensors matched (25%)",
        "  different shape, not loaded: c: (1,), here (2,)",
        "  not in this network: d, e, f, g, ... (5)",
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.pth", {"some.layer": torch.zeros(3)}),
        ("b.pth", {"epoch": 3, "lr": 0.1}),
        ("c.pth", [torch.zeros(3)]),
        ("d.pth", {3: torch.zeros(3)}),
        ("e.onnx", {}),
        ("f.pth", {"some.layer": torch.full((3,), float("nan"))}),
        ("g.pth", {"some.layer": torch.ones(1).expand(10**12)}),
        ("h.pth", {"some.layer": torch.eye(3).to_sparse()}),
        ("i.pth", {"module.some.layer": torch.ones(3), "some.layer": torch.ones(3)}),
    ],
)
def test_files_that_hold_no_weights_of_ours_end_in_one_line(
    name: str, content: object, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / name)
    with pytest.raises(UserError) as caught:
        load_weights(YOLOv4Tiny(1), read_weights(tmp_path / name))
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for load in (load_model, lambda path: load_weights(YOLOv4Tiny(1), read_weights(path))):
        with pytest.raises(UserError, match=r"nowhere\.weights"):
            load(tmp_path / "nowhere.weights")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder with its `best.pt`."""
    config = make_config({"phi": "cbam", "input_size": [64, 96], "name": "mine"})
    save_checkpoint(tmp_path / "best.pt", config.model_dump(mode="json"))
    return tmp_path


def test_own_checkpoint_comes_back_as_it_was(run: Path) -> None:
    saved = checkpoints.load(run / "best.pt")
    for path in (run, run / "best.pt"):
        detector = load_model(path, device="cpu", precision="fp32")
        assert detector.names == ("cat", "dog") and detector.input_size == (64, 96)
        assert detector.network.coder.anchors.tolist() == saved["anchors"]
        state = detector.network.state_dict()
        assert state.keys() == saved["model"].keys()
        assert all(torch.equal(tensor, saved["model"][name]) for name, tensor in state.items())


def test_own_checkpoint_with_changes(run: Path) -> None:
    detector = load_model(
        run, {"predict.score": 0.5}, device="cpu", precision=None, input_size=(32, 64)
    )
    assert detector.config.predict.score == 0.5 and detector.input_size == (32, 64)
    with pytest.raises(
        UserError, match=r"unknown key 'predict\.scor'; did you mean 'predict\.score'"
    ):
        load_model(run, {"predict.scor": 0.5})


def test_a_change_that_the_weights_do_not_fit_ends_in_one_line(run: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_model(run, phi="se")
    assert "best.pt" in str(caught.value) and "\n" not in str(caught.value)


def test_own_checkpoint_as_pretrained_weights(run: Path) -> None:
    network = build_model(make_config({"phi": "cbam"}), 2)
    report = load_weights(network, read_weights(run / "best.pt"))
    assert not report.mismatched and not report.unexpected and not report.missing


def test_checkpoints_with_old_names_of_keys_load(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    config = with_old_keys(make_config({"eval": {"vote_iou": 0.7}, "train": {"ema_decay": 0.5}}))
    assert config["eval"]["merge_iou"] == 0.7 and "vote_iou" not in config["eval"]
    save_checkpoint(path, config)
    detector = load_model(path, device="cpu")
    assert detector.config.eval.vote_iou == 0.7 and detector.config.train.ema_decay == 0.5
    weights = read_weights(path)
    assert len(load_weights(YOLOv4Tiny(2), weights).matched) == len(weights.tensors)
    assert choose_model_config(ModelConfig(), 2, weights).anchors == ANCHORS
