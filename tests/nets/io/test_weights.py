"""Darknet's weight files: parity with OpenCV's Darknet importer, damaged files, writing."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from nets import Detector, load_model
from nets.io.weights import darknet_layers, load_weights, read_darknet, read_weights, write_darknet
from nets.yolo.yolov4_tiny import YOLOv4Tiny
from utils.core.errors import UserError

HEADER = 20  # bytes: three int32 and a uint64


@pytest.fixture(scope="module")
def detector(darknet_file: Callable[[int], Path]) -> Detector:
    return load_model(darknet_file(80), precision="fp32", device="cpu")


@pytest.fixture(scope="module")
def expected(parity: Path) -> dict[str, np.ndarray]:
    return dict(np.load(parity / "expected_dog_416.npz"))


@pytest.fixture(scope="module")
def heads(detector: Detector, parity: Path) -> list[Tensor]:
    """Raw maps of the dog, read and resized as OpenCV's importer was fed."""
    image = cv2.imread(str(parity / "dog.jpg"))
    if hasattr(cv2, "dnn"):
        blob = cv2.dnn.blobFromImage(image, 1 / 255, (416, 416), swapRB=True)
    else:
        rgb = cv2.cvtColor(cv2.resize(image, (416, 416)), cv2.COLOR_BGR2RGB)
        blob = np.ascontiguousarray(rgb.transpose(2, 0, 1)[None]).astype(np.float32) / 255
    with torch.no_grad():
        return detector.network(torch.from_numpy(blob))


def test_heads_equal_opencvs(heads: list[Tensor], expected: dict[str, np.ndarray]) -> None:
    for got, name in zip(heads, ("head13", "head26"), strict=True):
        assert got.shape == expected[name].shape
        assert np.abs(got.numpy() - expected[name]).max() < 1e-3


def test_decoded_rows_equal_opencvs(
    detector: Detector, heads: list[Tensor], expected: dict[str, np.ndarray]
) -> None:
    """OpenCV's rows go cell by cell with the three anchors inside, ours anchor by anchor."""
    boxes, scores = (part[0] for part in detector.network.coder(heads))
    start = 0
    for m, name in zip(heads, ("yolo13", "yolo26"), strict=True):
        side = m.shape[2]
        rows = slice(start, start := start + 3 * side * side)
        theirs = (
            torch.from_numpy(expected[name])
            .view(side, side, 3, 85)
            .permute(2, 0, 1, 3)
            .flatten(0, 2)
        )
        size = boxes[rows, 2:] - boxes[rows, :2]
        ours = torch.cat([(boxes[rows, 2:] + boxes[rows, :2]) / 2, size], 1) / 416
        assert (
            (ours - theirs[:, :4]).abs() / theirs[:, :4].clamp(min=1)
        ).max() < 1e-4  # sizes reach 24 images
        assert (
            m.view(3, 85, side, side)[:, 4].sigmoid().flatten() - theirs[:, 4]
        ).abs().max() < 1e-4
        shown = theirs[:, 5:] > 0
        assert shown.any()
        assert (scores[rows] - theirs[:, 5:])[shown].abs().max() < 1e-4
        assert (
            scores[rows][~shown].max() < theirs[:, 5:][shown].min() + 1e-4
        )  # cut at their threshold


def test_a_darknet_file_brings_darknets_settings(detector: Detector) -> None:
    coder = detector.network.coder
    assert (coder.new_coords, coder.scale_x_y) == (False, 1.05)
    assert coder.masks == ((3, 4, 5), (1, 2, 3))
    assert coder.anchors[:2].tolist() == [[10, 14], [23, 27]]
    assert len(detector.names) == 80 and detector.names[0] == "person"
    assert detector.config.phi == "none"


def test_the_number_of_classes_follows_from_the_length(darknet_file: Callable[[int], Path]) -> None:
    twenty, three = (
        load_model(darknet_file(20), device="cpu"),
        load_model(darknet_file(3), device="cpu"),
    )
    assert len(twenty.names) == 20 and twenty.names[0] == "aeroplane"
    assert three.names == ("class 0", "class 1", "class 2")


def test_writing_gives_back_the_same_bytes(
    detector: Detector, darknet_file: Callable[[int], Path], tmp_path
) -> None:
    out = tmp_path / "out.weights"
    write_darknet(detector.network, out, seen=32013312)
    assert out.read_bytes() == darknet_file(80).read_bytes()


def test_attention_cannot_be_written(tmp_path: Path) -> None:
    with torch.device("meta"):
        network = YOLOv4Tiny(1, sites={"feat1": "se"})
    with pytest.raises(UserError, match="only phi=none"):
        write_darknet(network, tmp_path / "out.weights")
    assert not (tmp_path / "out.weights").exists()


def cut(source: Path, path: Path, values: int) -> Path:
    path.write_bytes(source.read_bytes()[: HEADER + 4 * values])
    return path


def values_before(name: str) -> int:
    """Float32 values ahead of a layer: a normalized layer has 4 per filter beside its weights."""
    count = 0
    with torch.device("meta"):
        for layer, conv, norm in darknet_layers(YOLOv4Tiny(80)):
            if layer == name:
                return count
            count += conv.weight.numel() + conv.out_channels * (4 if norm is not None else 1)
    raise AssertionError(name)


def test_a_file_cut_off_after_a_layer_is_read_that_far(
    darknet_file: Callable[[int], Path], tmp_path: Path
) -> None:
    """`yolov4-tiny.conv.29`: what Darknet's `partial` writes for training, all before the first output layer."""
    path = cut(darknet_file(80), tmp_path / "yolov4-tiny.conv.29", values_before("predict32"))
    network = YOLOv4Tiny(3)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    report = load_weights(network, read_weights(path))
    whole = read_darknet(darknet_file(80))
    after = network.state_dict()
    assert len(report.matched) == report.total == 17 * 5
    assert not report.misshapen and not report.unknown
    assert {name.split(".")[0] for name in report.matched} == {"backbone", "neck", "head32"}
    assert all(torch.equal(after[name], whole[name]) for name in report.matched)
    assert {name.split(".")[0] for name in report.fresh} == {
        "predict32",
        "neck",
        "head16",
        "predict16",
    }
    assert all(torch.equal(after[name], before[name]) for name in report.fresh)
    with pytest.raises(UserError, match="no detection heads"):
        load_model(path)


def damage(kind: str, source: bytes) -> bytes:
    if kind == "cut inside a layer":
        return source[:100_000]
    if kind == "a value short":
        return source[:-4]
    if kind == "a value too many":
        return source + b"\0\0\0\0"
    if kind == "no whole number of values":
        return source[:-3]
    if kind == "text":
        return b"these are not the weights you are looking for\n"
    return source[:8] if kind == "header cut" else b""


@pytest.mark.parametrize(
    "kind",
    [
        "cut inside a layer",
        "a value short",
        "a value too many",
        "no whole number of values",
        "text",
        "header cut",
        "empty",
    ],
)
def test_damaged_files_end_in_one_line(
    kind: str, darknet_file: Callable[[int], Path], tmp_path: Path
) -> None:
    path = tmp_path / "bad.weights"
    path.write_bytes(damage(kind, darknet_file(20).read_bytes()))
    with pytest.raises(UserError) as caught:
        load_model(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_an_old_file_counts_what_it_has_seen_in_four_bytes(
    darknet_file: Callable[[int], Path], tmp_path: Path
) -> None:
    whole = darknet_file(3).read_bytes()
    old = tmp_path / "old.weights"
    old.write_bytes(np.array([0, 1, 0, 7], "<i4").tobytes() + whole[HEADER:])
    expected = read_darknet(darknet_file(3))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in read_darknet(old).items())
