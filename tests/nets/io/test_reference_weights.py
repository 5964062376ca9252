"""Weights of the reference implementation find their place."""

import re
from pathlib import Path

import pytest
import torch

from nets import load_model
from nets.io.weights import load_weights, read_weights
from nets.yolo.yolov4_tiny import YOLOv4Tiny, build_model
from tests.nets.io.reference_weights import (
    BACKBONE,
    PHI,
    SITES,
    conv_shapes,
    fill,
    reference_shapes,
)
from utils.core.config import make_config
from utils.core.errors import UserError


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
