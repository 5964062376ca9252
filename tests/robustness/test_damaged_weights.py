"""Weights of every format, damaged or of another network, given to every command."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nets import load_model
from nets.io.darknet import write_darknet

Edit = Callable[[dict[str, Any]], object]
FIRST = "backbone.stem1.conv.weight"


def put(key: str, value: Any) -> Edit:
    return lambda content: content.update({key: value})


def config(**values: Any) -> Edit:
    return lambda content: content["config"].update(values)


def tensor(name: str, change: Callable[[torch.Tensor], Any]) -> Edit:
    return lambda content: content["model"].update({name: change(content["model"][name])})


def filled(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda values: torch.full_like(values, value)


# name -> (change to the content of best.pt, part of the message)
CHECKPOINTS: dict[str, tuple[Edit, str]] = {
    "no config": (lambda content: content.pop("config"), "config is missing"),
    "no names": (lambda content: content.pop("names"), "names is missing"),
    "no anchors": (lambda content: content.pop("anchors"), "anchors is missing"),
    "no tensors": (lambda content: content.pop("model"), "model is missing"),
    "no epoch": (lambda content: content.pop("epoch"), "epoch is missing"),
    "no format": (lambda content: content.pop("format"), "not a checkpoint of this project"),
    "other format": (put("format", "yolov5"), "not a checkpoint of this project"),
    "format as a number": (put("format", 1), "not a checkpoint of this project"),
    "config null": (put("config", None), "config: expected"),
    "config as text": (put("config", "input_size: 64"), "config: expected"),
    "unknown key": (config(colour="red"), "colour"),
    "input size 33": (config(input_size=33), "input_size"),
    "input size of a terabyte": (config(input_size=10**6), "input_size"),
    "other attention": (config(phi="se"), "do not fit the network"),
    "missing module": (config(phi="no.such:Block"), "no.such"),
    "module that ends the program": (config(phi="sys:exit"), "sys:exit"),
    "names null": (put("names", None), "names: expected"),
    "names as text": (put("names", "circle"), "names: expected"),
    "too few names": (put("names", ["circle"]), "1 class names, but the heads have 6"),
    "too many names": (put("names", [f"c{index}" for index in range(7)]), "7 class names"),
    "two equal names": (put("names", ["a"] * 6), "class 'a' is listed twice"),
    "numbers as names": (put("names", [1, 2, 3, 4, 5, 6]), "names"),
    "empty name": (put("names", ["", "b", "c", "d", "e", "f"]), "expected a class name, got none"),
    "name with a new line": (put("names", ["a\nb", "b", "c", "d", "e", "f"]), "expected one line"),
    "anchors null": (put("anchors", None), "anchors: expected"),
    "five anchors": (put("anchors", [[1.0, 1.0]] * 5), "anchors: expected"),
    "seven anchors": (put("anchors", [[1.0, 1.0]] * 7), "expected 6 for model.heads=2, got 7"),
    "three heads": (config(model={"heads": 3}), "expected 9 for model.heads=3, got 6"),
    "anchors not a number": (put("anchors", [[float("nan"), 1.0]] * 6), "anchors"),
    "anchors 0": (put("anchors", [[0.0, 1.0]] * 6), "anchors"),
    "anchors 1e30": (put("anchors", [[1e30, 1.0]] * 6), "anchors"),
    "negative epoch": (put("epoch", -1), "epoch"),
    "epoch not a number": (put("epoch", float("nan")), "epoch"),
    "tensors as a list": (put("model", []), "model: expected"),
    "empty tensors": (put("model", {}), "the heads have no classes"),
    "numbers for tensors": (put("model", {"a": 1.0}), "model"),
    "one missing": (lambda content: content["model"].pop(FIRST), f"{FIRST} is missing"),
    "one too many": (
        lambda content: content["model"].update(more=torch.zeros(1)), "unknown tensor more",
    ),
    "other shape": (tensor(FIRST, lambda values: values[1:]), f"{FIRST} has shape"),
    "no values": (tensor(FIRST, lambda values: values[:0]), f"{FIRST} has shape"),
    "transposed": (tensor(FIRST, lambda values: values.mT[..., :2]), f"{FIRST} has shape"),
    "not a number": (tensor(FIRST, filled(float("nan"))), "contains NaN or infinity"),
    "infinite": (tensor(FIRST, filled(float("inf"))), "contains NaN or infinity"),
    "integers": (tensor(FIRST, lambda values: values.long()), f"{FIRST} is of type torch.int64"),
    "complex": (tensor(FIRST, lambda values: values.to(torch.complex64)), "torch.complex64"),
    "sparse": (tensor(FIRST, lambda values: values.to_sparse()), "expected a dense tensor"),
    "meta": (tensor(FIRST, lambda values: values.to("meta")), "has a shape but no values"),
    "negative variance": (
        tensor("backbone.stem1.bn.running_var", filled(-1)), "contains negative variances",
    ),
    "heads of other classes": (
        tensor("predict32.bias", lambda values: values[:18]), "predict32: bias (18,)",
    ),
}  # fmt: skip
COMMANDS: dict[str, list[str]] = {
    "eval": ["eval", "--weights", "{}"],
    "predict": ["predict", "--weights", "{}"],
    "export": ["export", "--weights", "{}", "--format", "onnx", "--out", "x.onnx"],
    "train": ["train", "--config", "shapes.yaml", "input_size=64", "weights={}"],
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CHECKPOINTS)
def test_a_damaged_checkpoint_is_one_line(case: str, weights: Path, refused: Callable[..., str]):
    edit, words = CHECKPOINTS[case]
    content = torch.load(weights, weights_only=True)
    edit(content)
    torch.save(content, "bad.pt")
    message = refused("eval", "--weights", "bad.pt")
    assert words in message and "bad.pt" in message


class Payload:
    """Something that must never be executed."""

    def __reduce__(self) -> tuple:
        return Path("executed").touch, ()


def other_file(name: str, weights: Path) -> None:
    """Write a file that is no weights file, or a damaged one."""
    data = weights.read_bytes()
    contents: Mapping[str, Callable[[], Any]] = {
        "cut.pt": lambda: Path(name).write_bytes(data[: len(data) // 2]),
        "zeros at the end.pt": lambda: Path(name).write_bytes(data[:-5000] + bytes(5000)),
        "flipped bit.pt": lambda: Path(name).write_bytes(
            data[:50_000] + bytes([data[50_000] ^ 1]) + data[50_001:]
        ),
        "error page.pt": lambda: Path(name).write_text("<!DOCTYPE html>404"),
        "pointer of lfs.pt": lambda: Path(name).write_text("version https://git-lfs.github.com\n"),
        "json.pt": lambda: Path(name).write_text(json.dumps({"model": {}})),
        "list.pt": lambda: torch.save([torch.zeros(1)], name),
        "tensor.pt": lambda: torch.save(torch.zeros(1), name),
        "network.pt": lambda: torch.save(torch.nn.Linear(1, 1), name),
        "payload.pt": lambda: torch.save({"format": Payload()}, name),
        "of another network.pth": lambda: torch.save({"fc.weight": torch.zeros(3, 3)}, name),
        "empty dictionary.pth": lambda: torch.save({}, name),
        "short.weights": lambda: Path(name).write_bytes(bytes(10)),
        "header only.weights": lambda: Path(name).write_bytes(bytes(20)),
        "zeros.weights": lambda: Path(name).write_bytes(bytes(23_000_000)),
        "cut.weights": lambda: write_cut(name, weights),
        "random.onnx": lambda: Path(name).write_bytes(np.random.default_rng(0).bytes(1000)),
        "empty.onnx": lambda: Path(name).touch(),
        "text.txt": lambda: Path(name).write_text("weights"),
        "no suffix": lambda: Path(name).write_bytes(data),
    }
    contents[name]()


def write_cut(name: str, weights: Path) -> None:
    write_darknet(load_model(weights).network, name)
    Path(name).write_bytes(Path(name).read_bytes()[:-100])


OTHERS = (
    *("cut.pt", "zeros at the end.pt", "flipped bit.pt", "error page.pt", "pointer of lfs.pt"),
    *("json.pt", "list.pt", "tensor.pt", "network.pt", "payload.pt", "of another network.pth"),
    *("empty dictionary.pth", "short.weights", "header only.weights", "zeros.weights"),
    *("cut.weights", "random.onnx", "empty.onnx", "text.txt", "no suffix"),
)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", OTHERS)
def test_another_file_is_one_line(
    name: str, command: str, weights: Path, refused: Callable[..., str]
):
    other_file(name, weights)
    message = refused(*(word.format(name) for word in COMMANDS[command]))
    assert name in message
    assert not Path("executed").exists()


# file beside d.weights -> its content, part of the message
BESIDE: dict[str, tuple[str, str, str]] = {
    "empty cfg": ("d.cfg", "", "d.cfg"),
    "text cfg": ("d.cfg", "no sections", "d.cfg"),
    "other network": ("d.cfg", "[net]\nwidth=64\nheight=64\n[softmax]\n", "d.cfg"),
    "size 33": ("d.cfg", "[net]\nwidth=33\nheight=64\n[yolo]\n[yolo]\n", "d.cfg"),
    "no number": ("d.cfg", "[net]\nwidth=wide\n[yolo]\n[yolo]\n", "d.cfg"),
    "too few names": ("d.names", "a\nb\n", "d.names"),
    "equal names": ("d.names", "a\n" * 6, "d.names"),
    "empty names": ("d.names", "", "d.names"),
    "binary names": ("d.names", "a\0b\n" * 6, "d.names"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", BESIDE)
def test_a_file_beside_darknet_weights_that_disagrees_is_one_line(
    case: str, weights: Path, refused: Callable[..., str]
):
    name, text, words = BESIDE[case]
    write_darknet(load_model(weights).network, "d.weights")
    Path(name).write_text(text)
    assert words in refused("eval", "--weights", "d.weights", "data.format=shapes")
