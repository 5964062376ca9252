"""Paths of every kind, for every input and every output of every command."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

# name -> how to make it; ".x" stands for the suffix that the option expects
BAD_INPUTS: dict[str, Callable[[Path], object]] = {
    "missing.x": lambda path: None,
    "folder.x": lambda path: path.mkdir(),
    "fifo.x": os.mkfifo,
    "device.x": lambda path: path.symlink_to("/dev/zero"),
    "dangling.x": lambda path: path.symlink_to("nowhere"),
    "loop.x": lambda path: path.symlink_to(path.name),
    "empty.x": lambda path: path.touch(),
    "binary.x": lambda path: path.write_bytes(bytes(range(256)) * 9),
    "line\nbreak.x": lambda path: path.write_text("new line in the name"),
    "\udcff.x": lambda path: path.write_bytes(b"name that is not UTF-8"),
    "x" * 300: lambda path: None,
    "nul\0.x": lambda path: None,
    "file/below.x": lambda path: path.parent.write_text("a file"),
}
VALID = {
    ("train --config", "empty.x"),
    ("compare --config", "empty.x"),
    ("eval --config", "empty.x"),
}
READ_CONFIG = {"train --config", "compare --config", "eval --config"}
INPUTS: dict[str, list[str]] = {
    "train --config": ["train", "--config", "{}"],
    "train weights=": ["train", "--config", "shapes.yaml", "weights={}"],
    "train --resume": ["train", "--resume", "{}"],
    "train data.root=": ["train", "--config", "shapes.yaml", "data.format=voc", "data.root={}"],
    "train coco": ["train", "--config", "shapes.yaml", "data.format=coco", "data.root={}"],
    "train yolo": ["train", "--config", "shapes.yaml", "data.format=yolo", "data.root={}"],
    "eval --weights": ["eval", "--weights", "{}"],
    "eval --config": ["eval", "--weights", "{weights}", "--config", "{}"],
    "predict --source": ["predict", "--weights", "{weights}", "--source", "{}"],
    "predict video": ["predict", "--weights", "{weights}", "--mode", "video", "--source", "{}"],
    "predict dir": ["predict", "--weights", "{weights}", "--mode", "dir", "--source", "{}"],
    "predict --weights": ["predict", "--weights", "{}"],
    "export --weights": ["export", "--weights", "{}", "--format", "onnx"],
    "compare --config": ["compare", "--config", "{}"],
}
SUFFIXES = {"weights": ".pt", "--config": ".yaml", "--source": ".png", "video": ".mp4"}


@pytest.mark.parametrize("name", BAD_INPUTS)
@pytest.mark.parametrize("option", INPUTS)
def test_an_input_that_cannot_be_used_is_one_line(
    option: str, name: str, refused: Callable[..., str], weights: Path
):
    if name == "empty.x" and option in READ_CONFIG:
        pytest.skip("an empty file is a configuration without changes")
    suffix = next((value for key, value in SUFFIXES.items() if key in option), "")
    path = Path(name.replace(".x", suffix))
    BAD_INPUTS[name](path)
    refused(*(word.format(path, weights=weights) for word in INPUTS[option]))
