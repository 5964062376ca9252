"""Words on the command line that cannot be meant."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

PREDICT = ["predict", "--weights", "{weights}", "--source", "a.png"]
HEATMAP = [*PREDICT, "--mode", "heatmap"]
VIDEO = ["predict", "--weights", "{weights}", "--mode", "video", "--source"]
EVAL = ["eval", "--weights", "{weights}"]
ONNX = ["export", "--weights", "{weights}", "--format", "onnx"]
DARKNET = ["export", "--weights", "{weights}", "--format", "darknet"]
COMPARE = ["compare", "--config", "shapes.yaml"]
TRAIN = ["train", "--config", "shapes.yaml"]
# words -> part of the message
CASES: list[tuple[list[str], str]] = [
    (["train"], "one of the arguments"),
    ([*TRAIN, "--resume", "x"], "not allowed with"),
    ([*TRAIN, "--epochs", "3"], "unknown option --epochs"),
    ([*TRAIN, "train.epochs"], "override 'train.epochs': expected KEY=VALUE"),
    ([*TRAIN, "=3"], "override '=3': expected KEY=VALUE"),
    ([*TRAIN, ".=3"], "expected KEY=VALUE"),
    ([*TRAIN, "train..epochs=3"], "expected KEY=VALUE"),
    ([*TRAIN, "train.epochs 3"], "expected KEY=VALUE"),
    ([*TRAIN, "--train.epochs=3"], "unknown option --train.epochs"),
    ([*TRAIN, "x" * 5000], "expected KEY=VALUE"),
    ([*TRAIN, "seed=1", "seed=[1"], "override 'seed=[1': not valid YAML"),
    ([*TRAIN, "phi={{name: se"], "not valid YAML"),
    ([*TRAIN, "name=a\0b"], "the character U+0000 is not allowed"),
    (["train", "--explain", "x"], "--explain takes no KEY=VALUE"),
    *[
        ([*PREDICT, option, value], f"{option}: expected a number from 0 to 1, got")
        for option in ("--score", "--nms-iou")
        for value in ("nan", "inf", "1.0001", "-0.1", "half", "0,5", "50%", "1e-400x")
    ],
    *[
        ([*VIDEO, "a.mp4", "--timeout", value], "--timeout: expected a number from 0.1 to")
        for value in ("0", "-1", "nan", "inf", "1e9", "soon")
    ],
    *[
        ([*HEATMAP, "--class", "ring", "--point", value], f"--point {value}: ")
        for value in ("1", "1,2,3", "a,b", ",", "nan,1", "inf,1", "1e400,1", "40,32", "48,1")
    ],
    ([*HEATMAP, "--class", "ring", "--point=-1,5"], "--point -1,5: lies outside"),
    ([*HEATMAP, "--site", "feat3"], "--site feat3: no such site; did you mean"),
    ([*HEATMAP, "--site", "Feat1"], "--site Feat1: no such site; did you mean 'feat1'"),
    ([*HEATMAP, "--class", "cat"], "--class cat: not in the class list; "),
    ([*HEATMAP, "--class", "0"], "--class 0: not in the class list"),
    ([*HEATMAP, "--out", "a.jpg"], "--out a.jpg: --mode heatmap writes several images"),
    ([*PREDICT, "--device", "gpu"], "device: expected auto, cpu, cuda, cuda:1 or mps, got 'gpu'"),
    ([*PREDICT, "--device", "cuda:99"], "device=cuda:99"),
    ([*PREDICT, "--device", "cuda:-1"], "device: expected auto, cpu"),
    ([*PREDICT, "--backend", "tensorrt"], "backend: expected"),
    ([*PREDICT, "--precision", "fp8"], "precision: expected"),
    ([*PREDICT, "--precision", "int8", "--backend", "torch"], "int8"),
    ([*PREDICT, "--mode", "image "], "--mode: invalid choice"),
    ([*PREDICT, "b.png"], "--source b.png: no such file"),
    ([*PREDICT, "a.pgn"], "did you mean 'a.png'"),
    ([*PREDICT, "--mode", "dir"], "--source a.png is not a folder"),
    ([*PREDICT, "b.png", "--mode", "fps"], "takes one, got 2"),
    ([*PREDICT, ".", "--mode", "image"], ". is a folder: use --mode dir"),
    (["predict", "--weights", "{weights}", "--source", "http://host/a.png"], "is an address"),
    (["predict", "--weights", "{weights}", "--source", "*.png"], "no such file"),
    ([*PREDICT, "predict.scor=0.3"], "unknown key 'predict.scor'; did you mean 'predict.score'"),
    ([*PREDICT, "predict.score=2"], "predict.score: expected 0 to 1"),
    ([*PREDICT, "--classes", "Star"], "--classes Star: not in the class list; did you mean 'star'"),
    ([*PREDICT, "--classes", "device=cpu"], "--classes: expected a value"),
    ([*PREDICT, "--save", "text"], "--save text: no such format; did you mean 'txt'"),
    ([*PREDICT, "--save-conf"], "--save-conf: only with --save txt"),
    ([*PREDICT, "--save", "csv", "--out", "b.png"], "but --save csv needs a folder"),
    ([*VIDEO, "a.mp4", "--save", "txt"], "--save txt: a video can only be saved as image"),
    ([*PREDICT, "--tile", "0"], "--tile: expected 32 to 16,384 pixels, got 0"),
    ([*PREDICT, "--tile", "416.0"], "--tile: invalid int value"),
    ([*PREDICT, "--overlap", "0.1"], "--overlap: only with --tile"),
    ([*EVAL, "--tile", "64", "--overlap", "1"], "--overlap: expected 0 to 0.9, got 1.0"),
    ([*VIDEO, "9" * 20], "cannot open camera 99999999999999999999: expected a number"),
    ([*VIDEO, "0" * 30 + "9" * 5000], "cannot open camera 000"),
    ([*VIDEO, "999"], "cannot open camera 999"),
    ([*VIDEO, "-1"], "-1"),
    ([*VIDEO, "."], "it is a folder"),
    ([*VIDEO, "a.png.mp4"], "no such file; did you mean 'a.png'"),
    ([*VIDEO, "/dev/zero"], "is a device, expected a file"),
    ([*VIDEO, "rtsp://"], "the stream does not open"),
    ([*EVAL, "--split", "tset"], "did you mean 'test'"),
    ([*EVAL, "--split", "val/../train"], "there is no split"),
    ([*EVAL, "data.shapes_val=0"], "data.shapes_val: expected 1 to 100,000, got 0"),
    ([*EVAL, "input_size=0"], "input_size: expected an integer"),
    ([*EVAL, "phi=se"], "do not fit the network that phi=se asks for"),
    ([*EVAL, "model.anchors=[[1,1],[2,2]]"], "model.anchors"),
    ([*EVAL, "data.classes=[a,b]"], "data.classes"),
    ([*EVAL, "--config", "shape.yaml"], "did you mean 'shapes.yaml'"),
    ([*ONNX, "--out", "a.pt"], "--out a.pt: expected a file name that ends in .onnx"),
    ([*ONNX, "--out", "a"], "--out a: expected a file name that ends in .onnx"),
    ([*ONNX, "--out", "a.ONNX"], "expected a file name that ends in .onnx"),
    ([*ONNX, "--out", "/dev/null"], "expected a file name that ends in .onnx"),
    ([*DARKNET, "--out", "a.cfg"], "--out a.cfg: expected a file name that ends in .weights"),
    ([*DARKNET, "--out", "a.names"], "expected a file name that ends in .weights"),
    ([*DARKNET, "--opset", "18"], "--opset 18: only for --format onnx"),
    ([*ONNX, "--opset", "98"], "--opset 98: expected 12 to "),
    ([*ONNX, "--opset", "11"], "--opset 11: expected 12 to "),
    ([*ONNX, "--opset", "18.0"], "--opset: expected an integer from 1 to 99"),
    ([*ONNX, "--batch", "0"], "--batch: expected an integer from 1 to 1,024, got '0'"),
    ([*ONNX, "--size", "100"], "--size: expected a multiple of 32"),
    ([*ONNX, "--size", "64", "64", "64"], "--size: 3 numbers, expected one, or height and width"),
    ([*ONNX, "--half", "--int8"], "--int8: not allowed with argument --half"),
    ([*ONNX, "--int8"], "--int8: only for --format openvino"),
    ([*DARKNET, "--half"], "--half: only for --format onnx, openvino, ncnn"),
    ([*DARKNET, "--nms"], "--nms: only for --format onnx"),
    ([*DARKNET, "--batch", "dynamic"], "--batch dynamic: only for --format onnx, openvino"),
    (["export", "--weights", "{weights}"], "--format"),
    (["export", "--weights", "{weights}", "--format", "coreml"], "--format: invalid choice"),
    ([*COMPARE, "--seeds", "0", "0"], "--seeds: expected different integers"),
    ([*COMPARE, "--seeds", "0.5"], "--seeds: expected integers"),
    ([*COMPARE, "--seeds", "-1"], "--seeds"),
    ([*COMPARE, "--seeds", "4294967296"], "--seeds 4294967296"),
    ([*COMPARE, "--seeds", "9" * 5000], "--seeds"),
    ([*COMPARE, "--phi", "none"], "at least two settings"),
    ([*COMPARE, "--phi", "none", "see"], "did you mean 'se'"),
    ([*COMPARE, "--phi", "none", "[se]"], "phi"),
    ([*COMPARE, "--phi", "none", "{{name: se, reduction: 0}}"], "reduction"),
    ([*COMPARE, "--baseline", "nnoe"], "--baseline nnoe: no such setting; did you mean 'none'"),
    ([*COMPARE, "--control", "flops"], "--control: invalid choice"),
    ([*COMPARE, "seed=1"], "seed=...: a comparison takes its seeds from --seeds"),
    ([*COMPARE, "--settings", "no.yaml"], "--settings no.yaml: no such file"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), CASES, ids=range(len(CASES)))
def test_a_word_that_cannot_be_meant_is_one_line(
    words: list[str], message: str, refused: Callable[..., str], weights: Path
):
    Image.new("RGB", (48, 32)).save("a.png")
    assert message in refused(*(word.format(weights=weights) for word in words))
    assert not Path("runs").exists()
