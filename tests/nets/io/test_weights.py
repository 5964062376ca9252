"""Weights in PyTorch files: the reference implementation's and our own checkpoints."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from old_files import with_old_keys
from torch import Tensor

from nets import load_model
from nets.io import checkpoints
from nets.io.darknet import write_darknet
from nets.io.darknet_cfg import darknet_cfg
from nets.io.weights import (
    MatchReport,
    WeightsFile,
    choose_model_config,
    load_weights,
    read_weights,
)
from nets.yolo.box_coder import DARKNET
from nets.yolo.yolov4_tiny import YOLOv4Tiny, build_model
from utils.core.config import make_config, restore_config
from utils.core.errors import UserError
from utils.core.schema import Config, ModelConfig

# bubbliiiing/yolov4-tiny-pytorch's convolutions: name, input channels, output channels, kernel
BACKBONE = [
    ("conv1", 3, 32, 3),
    ("conv2", 32, 64, 3),
    *[
        layer
        for stage, width in ((1, 64), (2, 128), (3, 256))
        for layer in (
            (f"resblock_body{stage}.conv1", width, width, 3),
            (f"resblock_body{stage}.conv2", width // 2, width // 2, 3),
            (f"resblock_body{stage}.conv3", width // 2, width // 2, 3),
            (f"resblock_body{stage}.conv4", width, width, 1),
        )
    ],
    ("conv3", 512, 512, 3),
]
NECK_AND_HEADS = [
    ("conv_for_P5", 512, 256, 1),
    ("upsample.upsample.0", 256, 128, 1),
    ("yolo_headP5.0", 256, 512, 3),
    ("yolo_headP4.0", 384, 256, 3),
]
PHI = ["none", "se", "cbam", "eca", "ca"]
SITES = ("feat1", "feat2", "upsample")  # where the reference implementation puts its blocks


def block_shapes(phi: str, c: int) -> dict[str, tuple[int, ...]]:
    return {
        "none": {},
        "se": {"fc.0.weight": (c // 16, c), "fc.2.weight": (c, c // 16)},
        "cbam": {
            "channelattention.fc1.weight": (c // 8, c, 1, 1),
            "channelattention.fc2.weight": (c, c // 8, 1, 1),
            "spatialattention.conv1.weight": (1, 2, 7, 7),
        },
        "eca": {"conv.weight": (1, 1, 5)},
        "ca": {
            "conv_1x1.weight": (c // 16, c, 1, 1),
            "F_h.weight": (c, c // 16, 1, 1),
            "F_w.weight": (c, c // 16, 1, 1),
            **{
                f"bn.{key}": (c // 16,) for key in ("weight", "bias", "running_mean", "running_var")
            },
            "bn.num_batches_tracked": (),
        },
    }[phi]


def conv_shapes(
    layers: list[tuple[str, int, int, int]], prefix: str = ""
) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, inputs, outputs, kernel in layers:
        shapes[f"{prefix}{name}.conv.weight"] = (outputs, inputs, kernel, kernel)
        shapes |= {
            f"{prefix}{name}.bn.{key}": (outputs,)
            for key in ("weight", "bias", "running_mean", "running_var")
        }
        shapes[f"{prefix}{name}.bn.num_batches_tracked"] = ()
    return shapes


def reference_shapes(phi: str, classes: int) -> dict[str, tuple[int, ...]]:
    outputs = 3 * (5 + classes)
    shapes = conv_shapes(BACKBONE, "backbone.") | conv_shapes(NECK_AND_HEADS)
    shapes |= {"yolo_headP5.1.weight": (outputs, 512, 1, 1), "yolo_headP5.1.bias": (outputs,)}
    shapes |= {"yolo_headP4.1.weight": (outputs, 256, 1, 1), "yolo_headP4.1.bias": (outputs,)}
    for site, channels in (("feat1", 256), ("feat2", 512), ("upsample", 128)):
        shapes |= {
            f"{site}_att.{name}": shape for name, shape in block_shapes(phi, channels).items()
        }
    return shapes


def fill(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return {
        name: torch.tensor(3) if name.endswith("num_batches_tracked") else torch.rand(shape)
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize(("number", "phi"), list(enumerate(PHI)))
def test_reference_weights_match_wholly_and_tell_phi(number: int, phi: str, tmp_path: Path) -> None:
    state = fill(reference_shapes(phi, 20))
    tensors = [name for name in state if not name.endswith("num_batches_tracked")]
    path = tmp_path / "ep100.pth"
    torch.save(state, path)

    detector = load_model(path, device="cpu")
    assert detector.config.phi == phi
    assert detector.network.coder.scale_x_y == 1.0 and not detector.network.coder.new_coords
    assert len(detector.names) == 20

    network = build_model(make_config({"phi": number}), 20)
    report = load_weights(network, read_weights(path))
    assert (len(report.matched), report.total) == (len(tensors), len(tensors))
    assert not report.mismatched and not report.unexpected and not report.missing
    assert "(100%)" in report.lines()[0] and len(report.lines()) == 1
    # every tensor arrives once, unchanged: sums identify random tensors
    held = {
        name: tensor
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    assert sorted(t.sum().item() for t in held.values()) == sorted(
        state[name].sum().item() for name in tensors
    )
    loaded = detector.network.state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in held.items())


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("backbone.conv2.bn.running_var", "backbone.stem2.bn.running_var"),
        ("backbone.resblock_body2.conv3.conv.weight", "backbone.csp2.conv3.conv.weight"),
        ("backbone.conv3.conv.weight", "backbone.last.conv.weight"),
        ("conv_for_P5.bn.weight", "neck.lateral.bn.weight"),
        ("upsample.upsample.0.conv.weight", "neck.reduce.conv.weight"),
        ("yolo_headP5.1.bias", "predict32.bias"),
        ("yolo_headP4.0.bn.bias", "head16.bn.bias"),
        ("feat2_att.fc.2.weight", "attention.feat2.fc.2.weight"),
    ],
)
def test_tensors_land_where_they_belong(theirs: str, ours: str, tmp_path: Path) -> None:
    shape = reference_shapes("se", 2)[theirs]
    torch.save(
        {f"module.{theirs}": torch.full(shape, 7.0)}, tmp_path / "one.pth"
    )  # `module.`: saved by DataParallel
    network = YOLOv4Tiny(2, sites={"feat2": "se"})
    assert load_weights(network, read_weights(tmp_path / "one.pth")).matched == [ours]
    assert (network.state_dict()[ours] == 7).all()


def test_backbone_only_weights_fill_the_backbone(tmp_path: Path) -> None:
    path = tmp_path / "CSPdarknet53_tiny_backbone_weights.pth"
    torch.save({"state_dict": fill(conv_shapes(BACKBONE))}, path)
    network = YOLOv4Tiny(3, sites={"feat1": "eca"}, init="identity")
    report = load_weights(network, read_weights(path))
    own = [n for n in network.backbone.state_dict() if not n.endswith("num_batches_tracked")]
    assert sorted(report.matched) == sorted(f"backbone.{name}" for name in own)
    assert report.total == len(own)
    assert not any(name.startswith("backbone") for name in report.missing)
    assert any(name.startswith("attention.feat1") for name in report.missing)
    with pytest.raises(UserError, match="no detection heads"):
        load_model(path)


@pytest.mark.parametrize("phi", PHI[1:])
def test_trained_blocks_go_behind_the_gates_of_an_identity_start(phi: str, tmp_path: Path) -> None:
    state = fill(reference_shapes(phi, 20))
    torch.save(state, tmp_path / "trained.pth")
    network = YOLOv4Tiny(20, sites=dict.fromkeys(SITES, phi), init="identity")
    report = load_weights(network, read_weights(tmp_path / "trained.pth"))
    gates = [f"attention.{site}" for site in SITES]
    assert len(report.matched) == report.total and not report.mismatched and not report.unexpected
    assert (report.gated, report.missing) == (gates, [f"{gate}.alpha" for gate in gates])
    (line,) = [line for line in report.lines() if "identity gate" in line]
    assert all(gate in line for gate in gates) and "attention.init=paper" in line

    open_network = YOLOv4Tiny(20, sites=dict.fromkeys(SITES, phi)).eval()
    load_weights(open_network, read_weights(tmp_path / "trained.pth"))
    features = torch.rand(2, 256, 5, 3)
    gate = network.eval().attention["feat1"]
    assert torch.equal(gate(features), features)
    with torch.no_grad():
        gate.get_parameter("alpha").fill_(1)
    torch.testing.assert_close(gate(features), open_network.attention["feat1"](features))


def test_other_blocks_and_blocks_with_gates_are_left_as_they_are(tmp_path: Path) -> None:
    torch.save(fill(reference_shapes("se", 20)), tmp_path / "se.pth")
    report = load_weights(
        YOLOv4Tiny(20, sites={"feat1": "cbam"}, init="identity"), read_weights(tmp_path / "se.pth")
    )
    assert not report.gated and "attention.feat1.fc.0.weight" in report.unexpected
    network = YOLOv4Tiny(20, sites={"feat1": "se"}, init="identity")
    torch.save(network.state_dict(), tmp_path / "gated.pth")
    report = load_weights(network, read_weights(tmp_path / "gated.pth"))
    assert not report.gated and not report.missing and not report.unexpected


@pytest.mark.parametrize(
    ("key", "value"), [("attention.init", "identity"), ("phi", "cbam"), ("attention.at", ["stem"])]
)
def test_reference_weights_are_not_used_with_attention_that_they_do_not_hold(
    key: str, value: object, tmp_path: Path
) -> None:
    torch.save(fill(reference_shapes("se", 20)), tmp_path / "se.pth")
    with pytest.raises(UserError, match=rf"se\.pth: .*not fit the network that {re.escape(key)}"):
        load_model(tmp_path / "se.pth", {key: value}, device="cpu")


def test_other_classes_leave_the_heads_at_their_start_and_say_so(tmp_path: Path) -> None:
    torch.save(fill(reference_shapes("none", 20)), tmp_path / "voc.pth")
    network = YOLOv4Tiny(3)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    report = load_weights(network, read_weights(tmp_path / "voc.pth"))
    heads = [f"predict{stride}.{part}" for stride in (32, 16) for part in ("weight", "bias")]
    assert sorted(line.split(":")[0] for line in report.mismatched) == sorted(heads)
    assert "predict32.bias: (75,), here (24,)" in report.mismatched
    assert all(torch.equal(before[name], network.state_dict()[name]) for name in heads)
    assert len(report.matched) == report.total - 4
    lines = report.lines()
    assert any("different shape, not loaded" in line and "predict32" in line for line in lines)


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


def test_heads_and_tensors_that_are_not_of_the_network_are_refused(tmp_path: Path) -> None:
    state = fill(reference_shapes("none", 20))
    changes = {
        "bias": ({"yolo_headP5.1.bias": torch.ones(20)}, r"predict32: bias \(20,\)"),
        "scalar": ({"yolo_headP5.1.bias": torch.tensor(1.0)}, r"predict32: bias \(\)"),
        "more": ({"feat1_att.other": torch.ones(3)}, r"unknown tensor attention\.feat1\.other"),
    }
    for name, (tensors, words) in changes.items():
        torch.save({**state, **tensors}, tmp_path / f"{name}.pth")
        with pytest.raises(UserError, match=rf"{name}\.pth: .*{words}"):
            load_model(tmp_path / f"{name}.pth", device="cpu")


# our own


ANCHORS = [(4.0 * i, 5.0 * i) for i in range(1, 7)]  # fitted, not configured


def save_checkpoint(path: Path, config: dict[str, Any] | None = None) -> None:
    """A checkpoint for the classes cat and dog."""
    config = config or make_config({}).model_dump(mode="json")
    network = build_model(restore_config(config, "test"), 2, ANCHORS)
    saved = {"config": config, "names": ["cat", "dog"], "anchors": [list(a) for a in ANCHORS]}
    checkpoints.save(path, {**saved, "model": network.state_dict(), "epoch": 1})


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


# the box coder that pretrained heads bring


@pytest.fixture
def heads(tmp_path: Path) -> dict[str, WeightsFile]:
    """One weights file with heads for 2 classes per format and origin of the box coder."""
    network = YOLOv4Tiny(2)
    write_darknet(network, tmp_path / "plain.weights")
    write_darknet(network, tmp_path / "described.weights")
    model = {"new_coords": True, "anchors": ANCHORS}
    described = build_model(make_config({"model": model}), 2)
    (tmp_path / "described.cfg").write_text(darknet_cfg(described, (64, 64)))
    torch.save(network.state_dict(), tmp_path / "reference.pth")
    save_checkpoint(tmp_path / "ours.pt")
    paths = [path for path in tmp_path.iterdir() if path.suffix != ".cfg"]
    return {path.stem: read_weights(path) for path in paths}


@pytest.mark.parametrize(
    ("name", "new_coords", "scale_x_y", "anchors"),
    [
        ("plain", False, 1.05, DARKNET[2].anchors),
        ("described", True, 2.0, ANCHORS),
        ("reference", False, 1.0, DARKNET[2].anchors),
        ("ours", True, 2.0, ANCHORS),
    ],
)
def test_heads_that_fit_bring_their_coder(
    name: str,
    new_coords: bool,
    scale_x_y: float,
    anchors: Sequence[Sequence[float]],
    heads: dict[str, WeightsFile],
) -> None:
    model = choose_model_config(ModelConfig(), 2, heads[name])
    coder = build_model(Config(model=model), 2).coder
    assert (coder.new_coords, coder.scale_x_y) == (new_coords, scale_x_y)
    np.testing.assert_allclose(coder.anchors.numpy(), anchors)
    loaded = load_model(heads[name].path, device="cpu").network.coder
    assert torch.equal(coder.anchors, loaded.anchors) and coder.masks == loaded.masks
    assert (coder.new_coords, coder.scale_x_y) == (loaded.new_coords, loaded.scale_x_y)
    # what agrees with the file may be asked for
    assert choose_model_config(model, 2, heads[name]) == model
    same_scale = ModelConfig(scale_x_y=scale_x_y)
    assert choose_model_config(same_scale, 2, heads[name]) == model


@pytest.mark.parametrize(
    ("name", "requested", "keys"),
    [
        ("plain", {"scale_x_y": 2.0}, "model.scale_x_y"),
        ("plain", {"anchors": ANCHORS, "scale_x_y": 1.0}, "model.anchors, model.scale_x_y"),
        ("ours", {"new_coords": False}, "model.new_coords"),
        ("ours", {"anchor_masks": ((3, 4, 5), (1, 2, 3))}, "model.anchor_masks"),
    ],
)
def test_another_coder_than_that_of_heads_that_fit_is_refused(
    name: str, requested: dict[str, object], keys: str, heads: dict[str, WeightsFile]
) -> None:
    with pytest.raises(UserError, match=re.escape(keys)) as caught:
        choose_model_config(ModelConfig(**requested), 2, heads[name])
    assert str(heads[name].path) in str(caught.value) and "\n" not in str(caught.value)


def test_heads_that_do_not_fit_bring_no_coder(heads: dict[str, WeightsFile]) -> None:
    requested = ModelConfig(new_coords=False, scale_x_y=1.3)
    for weights in heads.values():
        assert choose_model_config(requested, 3, weights) is requested
    backbone = WeightsFile(Path("a.pth"), {"backbone.stem1.conv.weight": torch.zeros(32, 3, 3, 3)})
    assert choose_model_config(requested, 2, backbone) is requested


def test_a_cfg_of_other_classes_matters_only_to_heads_that_fit(
    heads: dict[str, WeightsFile],
) -> None:
    """Darknet's own way to fine-tune leaves a cfg for the new classes beside the old weights."""
    weights = heads["described"]
    cfg = weights.path.with_suffix(".cfg")
    cfg.write_text(darknet_cfg(YOLOv4Tiny(3), (64, 64)))
    assert choose_model_config(ModelConfig(), 3, weights) == ModelConfig()
    with pytest.raises(UserError, match="describes 3 classes, its weights have 2"):
        choose_model_config(ModelConfig(), 2, weights)


# written by earlier versions


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
