"""Darknet's three files as `export.py` writes them: read back by us, by an interpreter of cfg, and by OpenCV 4."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from cfg_interpreter import Interpreter
from cfg_interpreter import read_cfg as sections_of

from nets import load_model
from nets.io.darknet_cfg import darknet_cfg, read_cfg
from nets.io.weights import read_darknet, write_darknet
from nets.yolo.yolov4_tiny import YOLOv4Tiny, build_model
from utils.core.config import make_config
from utils.core.errors import UserError
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
    mine, theirs = (
        load_model(path, precision="fp32", device="cpu") for path in (darknet, trained.run)
    )
    assert (mine.names, mine.input_size) == (theirs.names, (64, 64))
    assert darknet.with_suffix(".names").read_text(encoding="utf-8").split() == list(theirs.names)
    canvases = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    for got, expected in zip(mine.backend(canvases), theirs.backend(canvases), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-3, rtol=1e-4)


def test_variances_make_up_for_darknets_epsilon(tmp_path: Path) -> None:
    network = YOLOv4Tiny(1)
    network.backbone.stem1.bn.running_var.fill_(2e-5)
    write_darknet(network, tmp_path / "a.weights")
    read = read_darknet(tmp_path / "a.weights")["backbone.stem1.bn.running_var"]
    torch.testing.assert_close(read + 1e-6, torch.full((32,), 2e-5 + 1e-5), atol=0, rtol=1e-4)


def test_the_cfg_describes_the_network(darknet: Path, trained: Result) -> None:
    """An interpreter of Darknet's language computes the same from the two files alone."""
    sections = sections_of(darknet.with_suffix(".cfg"))
    assert sections[0][1].items() >= {"width": "64", "height": "64", "channels": "3"}.items()
    interpreter = Interpreter(sections, np.fromfile(darknet, "<f4", offset=20))
    network = load_model(trained.run, precision="fp32", device="cpu").network
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        heads, maps = interpreter.run(images), network(images)
    assert interpreter.used == len(interpreter.values)
    for head, m in zip(
        heads, maps, strict=True
    ):  # with new_coords the probabilities enter the [yolo] layer
        torch.testing.assert_close(head, m.sigmoid(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("new_coords", [True, False])
def test_the_cfg_holds_the_box_settings(new_coords: bool, tmp_path: Path) -> None:
    anchors = [[1.5, 2.25], [3, 4], [5, 6], [7, 8], [9, 10], [11.125, 12]]
    values = {
        "anchors": anchors,
        "new_coords": new_coords,
        "anchor_masks": ((3, 4, 5), (1, 2, 3)),
        "scale_x_y": 1.3,
    }
    network = build_model(make_config({"model": values}), 4)
    path = tmp_path / "a.cfg"
    path.write_text(darknet_cfg(network, (64, 96)))
    assert read_cfg(path) == {"input_size": [64, 96], "classes": 4, "model": values}
    last = [
        options["activation"]
        for kind, options in sections_of(path)
        if options.get("filters") == "27"
    ]
    assert last == ["logistic" if new_coords else "linear"] * 2
    yolo = [options for kind, options in sections_of(path) if kind == "yolo"]
    assert yolo[0]["num"] == "6" and yolo[0]["anchors"].startswith("1.5,2.25, 3,4")


def test_opencv_4_reads_the_darknet_files(darknet: Path, trained: Result) -> None:
    if not hasattr(getattr(cv2, "dnn", None), "readNetFromDarknet"):
        pytest.skip("needs OpenCV 4: OpenCV 5 has no importer for Darknet")
    net = cv2.dnn.readNetFromDarknet(str(darknet.with_suffix(".cfg")), str(darknet))
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    net.setInput(cv2.dnn.blobFromImage(image, 1 / 255, (64, 64)))
    boxes, _ = load_model(trained.run, precision="fp32", device="cpu").backend(
        torch.from_numpy(image)[None]
    )
    start = 0
    for rows, side in zip(net.forward(net.getUnconnectedOutLayersNames()), (2, 4), strict=True):
        part = slice(start, start := start + 3 * side * side)
        theirs = (
            torch.from_numpy(rows).view(side, side, 3, -1).permute(2, 0, 1, 3).flatten(0, 2)[:, :4]
            * 64
        )
        ours = torch.cat(
            [
                (boxes[0, part, :2] + boxes[0, part, 2:]) / 2,
                boxes[0, part, 2:] - boxes[0, part, :2],
            ],
            1,
        )
        torch.testing.assert_close(ours, theirs, atol=1e-2, rtol=1e-3)


def test_a_cfg_of_another_network_is_refused(darknet: Path, tmp_path: Path) -> None:
    copy = tmp_path / "a.weights"
    copy.write_bytes(darknet.read_bytes())
    cfg = darknet.with_suffix(".cfg").read_text()
    copy.with_suffix(".cfg").write_text(cfg.replace("classes=6", "classes=7"))
    with pytest.raises(
        UserError, match=r"a\.cfg: describes 7 classes, the weights beside it have 6"
    ):
        load_model(copy)
    copy.with_suffix(".cfg").write_text("[net]\nwidth=64\n")
    with pytest.raises(UserError, match=r"a\.cfg: not a cfg of YOLOv4-tiny"):
        load_model(copy)


def test_a_difference_is_not_hidden(
    trained: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export that computes something else must not pass for good."""

    real = export_module.write_darknet

    def damaged(network: YOLOv4Tiny, path: Path) -> None:
        network = build_model(make_config({}), network.num_classes, network.coder.anchors.tolist())
        real(network, path)

    monkeypatch.setattr(export_module, "write_darknet", damaged)
    with pytest.raises(UserError, match="the exported file gives other results"):
        export(str(trained.run), "darknet", str(tmp_path / "a.weights"))
