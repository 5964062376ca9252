"""Outputs that would destroy an input or another output, or that cannot be written."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nets import load_model
from nets.io.darknet import write_darknet
from utils.visualization.video import VideoSink

IMAGE = ["predict", "--weights", "w.pt", "--source", "a.png"]
FOLDER = ["predict", "--weights", "w.pt", "--mode", "dir", "--source", "in"]
VIDEO = ["predict", "--weights", "w.pt", "--mode", "video", "--source", "clip.mp4"]
EVAL = ["eval", "--weights", "w.pt"]
COCO = [*EVAL, "data.format=coco", "data.root=data"]
YOLO = [*EVAL, "data.format=yolo", "data.root=data"]
VOC = [*EVAL, "data.format=voc", "data.root=data"]
ONNX = ["export", "--weights", "w.pt", "--format", "onnx"]
DARKNET = ["export", "--weights", "w.pt", "--format", "darknet"]
READS = "would overwrite a file that this command reads"
ALSO = "is also the file of"
# words -> part of the message
SAME: list[tuple[list[str], str]] = [
    ([*IMAGE, "--json", "w.pt"], READS),
    ([*IMAGE, "--json", "./in/../w.pt"], READS),
    ([*IMAGE, "--json", "link.pt"], READS),
    ([*IMAGE, "--json", "hard.pt"], READS),
    ([*IMAGE, "--json", "a.png"], READS),
    ([*IMAGE, "--out", "a.png"], READS),
    ([*IMAGE, "--out", "hard.png"], READS),
    ([*IMAGE, "--out", "link.png"], READS),
    ([*IMAGE, "--out", "b.png", "--json", "b.png"], ALSO),
    ([*IMAGE, "--out", "b.png", "--json", "in/../b.png"], ALSO),
    ([*IMAGE, "--out", "in/c.png", "--json", "in/hard.png"], ALSO),
    ([*IMAGE, "c.png", "--out", "c.jpg"], "give a folder"),
    ([*IMAGE, "--mode", "heatmap", "--class", "ring", "--json", "a.png"], READS),
    ([*IMAGE, "--mode", "fps", "--json", "w.pt"], READS),
    ([*FOLDER, "--json", "w.pt"], READS),
    ([*FOLDER, "--json", "in/c.png"], READS),
    ([*FOLDER, "--json", "in/hard.png"], READS),
    ([*VIDEO, "--json", "clip.mp4"], READS),
    ([*VIDEO, "--out", "clip.mp4"], READS),
    ([*VIDEO, "--out", "hard.mp4"], READS),
    ([*VIDEO, "--out", "b.mp4", "--json", "b.mp4"], ALSO),
    ([*EVAL, "--json", "w.pt"], READS),
    ([*EVAL, "--json", "hard.pt"], READS),
    ([*EVAL, "--config", "x.yaml", "--json", "x.yaml"], READS),
    ([*EVAL, "--json", "p/pr.png", "--plots", "p"], ALSO),
    ([*EVAL, "--json", "p/../p/confusion.png", "--plots", "p"], ALSO),
    ([*COCO, "--json", "data/annotations/instances_val.json"], READS),
    ([*YOLO, "--json", "data/data.yaml"], READS),
    ([*YOLO, "--json", "data/labels/val/b.txt"], READS),
    ([*YOLO, "--json", "data/images/val/b.png"], READS),
    ([*VOC, "--json", "data/Annotations/b.xml"], READS),
    ([*VOC, "--json", "data/ImageSets/Main/val.txt"], READS),
    ([*EVAL, "data.format=yolo", "data.root=plots", "--plots", "plots/images/val"], READS),
    ([*EVAL, "data.classes=names.txt", "--json", "names.txt"], READS),
    (["export", "--weights", "w.onnx", "--format", "onnx"], "already exported"),
    (["export", "--weights", "w.weights", "--format", "darknet"], READS),
]
UNWRITABLE: list[tuple[list[str], str]] = [
    ([*IMAGE, "--json", "in"], "--json in: is a folder, expected a file"),
    ([*IMAGE, "--json", "a.png/x.json"], "--json a.png/x.json: "),
    ([*IMAGE, "--json", "/dev/full"], "no space left"),
    ([*IMAGE, "--json", "/proc/x.json"], "/proc/x.json: "),
    ([*IMAGE, "--json", "x" * 300], "too long"),
    ([*IMAGE, "--json", "nul\0"], "--json nul"),
    ([*IMAGE, "--json", "loop"], "--json loop"),
    ([*IMAGE, "--out", "a.png/x.png"], "a.png"),
    ([*FOLDER, "--out", "a.png"], "--out a.png"),
    ([*FOLDER, "--out", "/proc/x"], "/proc"),
    ([*FOLDER, "--out", "a.png/x", "--save", "csv"], "a.png is not a folder"),
    ([*VIDEO, "--out", "b.webm"], "--out b.webm: expected a folder or a video file"),
    ([*VIDEO, "--out", "a.png/b.mp4"], "is not a folder"),
    ([*EVAL, "--json", "in"], "--json in: is a folder"),
    ([*EVAL, "--json", "/dev/full"], "no space left"),
    ([*EVAL, "--plots", "a.png"], "a.png is not a folder"),
    ([*EVAL, "--plots", "/proc/x"], "/proc"),
    ([*EVAL, "--plots", "taken"], "--plots taken/pr.png: is a folder, expected a file"),
    ([*ONNX, "--out", "folder.onnx"], "--out folder.onnx: is a folder, expected a file"),
    ([*ONNX, "--out", "a.png/x.onnx"], "a.png is not a folder"),
    ([*ONNX, "--out", "/proc/x.onnx"], "/proc"),
    ([*DARKNET, "--out", "taken.weights"], "--out taken.cfg: is a folder, expected a file"),
    (["compare", "--config", "x.yaml", "--out", "a.png"], "--out a.png"),
    (["compare", "--config", "x.yaml", "--out", "a.png/x"], "--out a.png/x"),
    (["compare", "--config", "x.yaml", "--out", "/proc/x"], "--out /proc/x"),
]


@pytest.fixture
def folder(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one of each input, and links to some."""
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(weights, "w.pt")
    for name in ("in", "folder.onnx", "taken/pr.png", "taken.cfg", "plots/images/val"):
        Path(name).mkdir(parents=True)
    for name in ("a.png", "c.png", "in/c.png", "plots/images/val/pr.png"):
        Image.new("RGB", (48, 32)).save(name)
    Path("plots/labels/val").mkdir(parents=True)
    Path("plots/labels/val/pr.txt").touch()
    Path("plots/data.yaml").write_text("names: [circle, cross]")
    Path("x.yaml").write_text("input_size: 64\ndata: {shapes_train: 4, shapes_val: 1}\n")
    Path("names.txt").write_text("circle\ncross\nring\nsquare\nstar\ntriangle\n")
    Path("loop").symlink_to("loop")
    for name, target in (("pt", "w.pt"), ("png", "a.png")):
        os.link(target, f"hard.{name}")
        Path(f"link.{name}").symlink_to(target)
    os.link("in/c.png", "in/hard.png")
    write_darknet(load_model("w.pt").network, "w.weights")
    Path("w.onnx").touch()
    with VideoSink("clip.mp4", 25, (48, 32)) as sink:
        sink.write(np.zeros((32, 48, 3), np.uint8))
    os.link("clip.mp4", "hard.mp4")
    return tmp_path


def snapshot(folder: Path) -> dict[Path, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {path: path.read_bytes() for path in files}


@pytest.mark.slow
@pytest.mark.parametrize(("words", "message"), SAME + UNWRITABLE)
def test_an_output_that_destroys_something_is_refused(
    words: list[str],
    message: str,
    folder: Path,
    refused: Callable[..., str],
    written: Callable[[str], Path],
):
    kind = next((word[12:] for word in words if word.startswith("data.format=")), None)
    if kind and "data.root=data" in words:
        written(kind)
    before = snapshot(folder)
    assert message in refused(*words)
    assert snapshot(folder).items() >= before.items()
