"""Darknet's three files as `export.py` writes them, read by us and by an interpreter of cfg."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from cfg_interpreter import Interpreter, read_cfg_sections
from darknet_files import cfg_text

from nets import load_model
from nets.io.darknet import MODEL_CONFIGS
from nets.io.darknet_cfg import DarknetCfg, darknet_cfg, read_cfg
from nets.yolo.yolov4_tiny import YOLOv4Tiny, build_model
from utils.core.config import make_config
from utils.core.errors import UserError
from utils.core.schema import ModelConfig
from utils.engine import export as export_module
from utils.engine.experiment import Result
from utils.engine.export import export


@pytest.fixture(scope="module")
def darknet(trained: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("darknet") / "small.weights"
    lines = export(str(trained.run), "darknet", str(path))
    assert str(path) in lines[0] and "verified" in lines[1]
    return path


def test_darknet_files_give_back_the_detector(darknet: Path, trained: Result) -> None:
    exported = load_model(darknet, precision="fp32", device="cpu")
    original = load_model(trained.run, precision="fp32", device="cpu")
    assert (exported.names, exported.input_size) == (original.names, (64, 64))
    assert darknet.with_suffix(".names").read_text(encoding="utf-8").split() == list(exported.names)
    canvases = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    ours, theirs = exported.backend(canvases), original.backend(canvases)
    for output, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(output, expected, atol=1e-3, rtol=1e-4)


def test_the_cfg_describes_the_network(darknet: Path, trained: Result) -> None:
    """An interpreter of Darknet's language computes the same from the two files alone."""
    sections = read_cfg_sections(darknet.with_suffix(".cfg"))
    assert sections[0][1].items() >= {"width": "64", "height": "64", "channels": "3"}.items()
    interpreter = Interpreter(sections, np.fromfile(darknet, "<f4", offset=20))
    network = load_model(trained.run, precision="fp32", device="cpu").network
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        heads, maps = interpreter.run(images), network(images)
    assert interpreter.used == len(interpreter.values)
    # with new_coords, probabilities enter the [yolo] layer
    for head, raw in zip(heads, maps, strict=True):
        torch.testing.assert_close(head, raw.sigmoid(), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("new_coords", "heads"), [(True, 2), (False, 2), (False, 3)])
def test_the_cfg_is_one_that_opencv_4_reads(new_coords: bool, heads: int, tmp_path: Path) -> None:
    """The layers of the cfg from which OpenCV computed what `test_darknet` expects."""
    accepted, ours = tmp_path / "accepted.cfg", tmp_path / "ours.cfg"
    accepted.write_text(cfg_text(4, new_coords, heads))
    update = {"new_coords": new_coords, "scale_x_y": 2.0 if new_coords else 1.05}
    model = MODEL_CONFIGS[heads].model_copy(update=update)
    ours.write_text(darknet_cfg(build_model(make_config({"model": dict(model)}), 4), (288, 416)))
    pairs = zip(read_cfg_sections(ours), read_cfg_sections(accepted), strict=True)
    for (kind, options), (accepted_kind, accepted_options) in pairs:
        assert kind == accepted_kind
        if kind == "yolo":
            scales = float(options.pop("scale_x_y")), float(accepted_options.pop("scale_x_y"))
            assert scales[0] == pytest.approx(scales[1])
        assert options.items() >= accepted_options.items()


@pytest.mark.parametrize("new_coords", [True, False])
def test_the_cfg_holds_the_box_settings(new_coords: bool, tmp_path: Path) -> None:
    model = ModelConfig(
        anchors=[(1.5, 2.25), (3, 4), (5, 6), (7, 8), (9, 10), (11.125, 12)],
        anchor_masks=((3, 4, 5), (1, 2, 3)),
        new_coords=new_coords,
        scale_x_y=1.3,
    )
    network = build_model(make_config({"model": dict(model)}), 4)
    path = tmp_path / "a.cfg"
    path.write_text(darknet_cfg(network, (64, 96)))
    assert read_cfg(path) == DarknetCfg((64, 96), 4, model)


def test_a_cfg_of_another_network_is_refused(darknet: Path, tmp_path: Path) -> None:
    copy = tmp_path / "a.weights"
    copy.write_bytes(darknet.read_bytes())
    cfg = copy.with_suffix(".cfg")
    text = darknet.with_suffix(".cfg").read_text()
    for changed, words in (
        (cfg_text(7), r"describes 7 classes, its weights have 6"),
        (cfg_text(6, heads=3), r"describes 3 heads, its weights have 2"),
        ("[net]\nwidth=64\n", "not a cfg of YOLOv4-tiny"),
        (text.replace("[net]", "[network]"), r"not a cfg of YOLOv4-tiny: no \[net\] section"),
        (text.replace("width=64", "width=65"), "input_size: expected an integer"),
    ):
        cfg.write_text(changed)
        with pytest.raises(UserError, match=rf"a\.cfg: {words}") as caught:
            load_model(copy)
        assert "\n" not in str(caught.value)


def test_the_cfg_may_lie_elsewhere(darknet: Path, trained: Result, tmp_path: Path) -> None:
    copy = tmp_path / "a.weights"
    copy.write_bytes(darknet.read_bytes())
    cfg = darknet.with_suffix(".cfg")
    beside = load_model(darknet, precision="fp32", device="cpu")
    elsewhere = load_model(copy, cfg=cfg, precision="fp32", device="cpu")
    assert (elsewhere.names, elsewhere.input_size) == (beside.names, (64, 64))
    canvases = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    torch.testing.assert_close(elsewhere.backend(canvases), beside.backend(canvases))
    lines = export(str(copy), "onnx", str(tmp_path / "a.onnx"), cfg=str(cfg))
    assert load_model(tmp_path / "a.onnx").names == beside.names and lines
    with pytest.raises(UserError, match=r"missing\.cfg: .*(no such|does not exist)"):
        load_model(copy, cfg=tmp_path / "missing.cfg")
    with pytest.raises(UserError, match=r"cfg=.*: only Darknet weights have a \.cfg, not .*\.pt"):
        load_model(trained.run, cfg=cfg)


def test_a_difference_is_not_hidden(
    trained: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export that computes something else must not pass as verified."""
    write_darknet = export_module.write_darknet

    def write_another(network: YOLOv4Tiny, path: Path) -> None:
        anchors = network.coder.anchors.tolist()
        write_darknet(build_model(make_config({}), network.num_classes, anchors), path)

    monkeypatch.setattr(export_module, "write_darknet", write_another)
    with pytest.raises(UserError, match="the exported file gives different results"):
        export(str(trained.run), "darknet", str(tmp_path / "a.weights"))


CFG = {  # line of the first [yolo] section or of [net] -> what is said about another value
    "width=64": ("width=nan", "width: expected integers, got 'nan'"),
    "height=64": ("height=" + "9" * 5000, "height: expected integers"),
    "channels=3": ("channels=1", "channels: expected 3"),
    "mask=3,4,5": ("mask=3,4,7", "anchor_masks"),
    "classes=4": ("classes=four", "classes differs between the"),
    "scale_x_y=1.05": ("scale_x_y=1e400", "scale_x_y differs between the"),
    "[yolo]": ("[region]", "1 \\[yolo\\] layers, expected 2 or 3"),
}


@pytest.mark.parametrize("line", CFG)
def test_a_malformed_value_of_a_cfg_is_named(line: str, tmp_path: Path) -> None:
    text = darknet_cfg(YOLOv4Tiny(4), (64, 64))
    changed, words = CFG[line]
    assert line in text
    path = tmp_path / "a.cfg"
    path.write_text(text.replace(line, changed, 1))
    with pytest.raises(UserError, match=rf"a\.cfg: .*{words}") as caught:
        read_cfg(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("value", ["inf", "nan", "1e400", "-1", "0", "abc", "", "1,2"])
def test_a_number_of_both_layers_that_is_none_is_refused(value: str, tmp_path: Path) -> None:
    text = darknet_cfg(YOLOv4Tiny(4), (64, 64))
    path = tmp_path / "a.cfg"
    path.write_text(re.sub("scale_x_y=.*", f"scale_x_y={value}", text))
    with pytest.raises(UserError, match=r"a\.cfg: .*scale_x_y"):
        read_cfg(path)
    path.write_text(re.sub("anchors=.*", f"anchors={value}, 14, 23,27, 1,1, 2,2, 3,3, 4,4", text))
    with pytest.raises(UserError, match=r"a\.cfg: .*anchors"):
        read_cfg(path)
