"""A mistake in files and values is one line that names it, and exit code 2."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import eval as eval_cli
import predict as predict_cli
import train as train_cli
from utils.core.images import write_image
from utils.engine.experiment import Result


def bad_weights(name: str) -> str:
    Path(name).write_bytes(b"PK\x03\x04 cut off")
    return name


def voc(name: str) -> str:
    """A VOC dataset with a cat, read as one of dogs only."""
    write_image("voc/JPEGImages/a.png", np.zeros((20, 20, 3), np.uint8))
    corners = "".join(
        f"<{key}>{value}</{key}>"
        for key, value in zip(("xmin", "ymin", "xmax", "ymax"), (2, 2, 9, 9), strict=True)
    )
    for path, text in (
        (
            "voc/Annotations/a.xml",
            f"<annotation><object><name>{name}</name><bndbox>{corners}</bndbox></object></annotation>",
        ),
        ("voc/ImageSets/Main/train.txt", "a\n"),
    ):
        Path(path).parent.mkdir(parents=True)
        Path(path).write_text(text)
    Path("dogs.yaml").write_text("data: {format: voc, root: voc, val: train, classes: [dog]}\n")
    return "dogs.yaml"


MISTAKES: list[tuple[ModuleType, Callable[[Result], list[object]], list[str]]] = [
    (
        train_cli,
        lambda run: ["--config", "shaps.yaml"],
        ["shaps.yaml", "did you mean 'shapes.yaml'"],
    ),
    (
        train_cli,
        lambda run: ["--config", "shapes.yaml", "train.epoch=3"],
        ["epoch", "did you mean 'train.epochs'"],
    ),
    (
        train_cli,
        lambda run: ["--config", "shapes.yaml", "trian.epochs=3"],
        ["trian", "did you mean 'train'"],
    ),
    (train_cli, lambda run: ["--config", "shapes.yaml", "epochs"], ["'epochs'", "KEY=VALUE"]),
    (
        train_cli,
        lambda run: ["--config", "shapes.yaml", "train.epochs=many"],
        ["train.epochs", "integer", "many"],
    ),
    (
        train_cli,
        lambda run: ["--config", "shapes.yaml", "train.epochs=0"],
        ["train.epochs", "expected 'auto' or 1 to 1,000,000, got 0"],
    ),
    (train_cli, lambda run: ["--config", "shapes.yaml", "train=3"], ["train", "3"]),
    (train_cli, lambda run: ["--config", "shapes.yaml", "train.epochs.x=3"], ["train.epochs"]),
    (
        train_cli,
        lambda run: ["--config", "shapes.yaml", "input_size=100"],
        ["input_size", "multiples of 32", "100"],
    ),
    (
        train_cli,
        lambda run: ["--config", "shapes.yaml", "input_size=32", "train.batch_size=1"],
        ["steps of 1 image with input_size=[32, 32]", "single value", "train.batch_size"],
    ),
    (
        train_cli,
        lambda run: ["--config", "shapes.yaml", "input_size=32", "data.shapes_train=1"],
        ["steps of 1 image with input_size=[32, 32]", "single value"],
    ),
    (
        train_cli,
        lambda run: ["--config", "shapes.yaml", "device=cuda:7"],
        ["device=cuda:7", "device=auto"],
    ),
    (train_cli, lambda run: ["--config", "shapes.yaml", "device=tpu"], ["device", "tpu"]),
    (
        train_cli,
        lambda run: ["--config", "shapes.yaml", "device=cpu", "precision=fp16"],
        ["precision=fp16"],
    ),
    (
        train_cli,
        lambda run: ["--config", "shapes.yaml", "phi=cbma"],
        ["cbma", "did you mean 'cbam'"],
    ),
    (
        train_cli,
        lambda run: ["--config", "shapes.yaml", "weights=no.pt"],
        ["no.pt", "no such file"],
    ),
    (
        train_cli,
        lambda run: ["--config", "voc_cbam.yaml"],
        ["datasets/VOCdevkit", "data.root=", "data.download=true"],
    ),
    (train_cli, lambda run: ["--config", "neu_det.yaml"], ["datasets/NEU-DET", "data.root="]),
    (train_cli, lambda run: ["--config", "coco.yaml"], ["datasets/coco", "data.root"]),
    (train_cli, lambda run: ["--config", voc("cat")], ["a.xml", "cat", "dog"]),
    (train_cli, lambda run: ["--resume", "runs/none"], ["--resume runs/none", "last.pt"]),
    (train_cli, lambda run: ["--resume", run.run], ["training is already finished"]),
    (train_cli, lambda run: ["--resume", run.run, "train.lr=9"], ["--resume", "train.lr"]),
    (eval_cli, lambda run: [], ["train first", "--weights"]),
    (eval_cli, lambda run: ["--weights", "none.pt"], ["--weights none.pt", "no such file"]),
    (eval_cli, lambda run: ["--weights", bad_weights("b.pt")], ["b.pt", "not readable"]),
    (
        eval_cli,
        lambda run: ["--weights", run.run, "eval.nms=1"],
        ["eval.nms", "did you mean 'eval.nms_iou'"],
    ),
    (
        eval_cli,
        lambda run: ["--weights", run.run, "phi=se"],
        ["best.pt", "phi=se", "do not fit the network"],
    ),
    (
        eval_cli,
        lambda run: ["--weights", run.run, "--config", "neu_det.yaml"],
        ["datasets/NEU-DET"],
    ),
    (predict_cli, lambda run: ["--source", "a.png"], ["train first", "--weights"]),
    (
        predict_cli,
        lambda run: ["--source", "a.png", "--weights", run.run],
        ["--source a.png", "no such file"],
    ),
    (
        predict_cli,
        lambda run: ["--source", bad_weights("b.png"), "--weights", run.run],
        ["b.png", "decode"],
    ),
    (
        predict_cli,
        lambda run: ["--source", "a", "b", "--mode", "dir", "--weights", run.run],
        ["takes one"],
    ),
    (
        predict_cli,
        lambda run: ["--mode", "video", "--source", "a.mp4", "--weights", run.run],
        ["a.mp4"],
    ),
    (predict_cli, lambda run: ["--weights", run.run, "--score", 2], ["--score", "0 to 1"]),
    (predict_cli, lambda run: ["--weights", run.run, "--device", "cuda:7"], ["device=cuda:7"]),
]


@pytest.mark.parametrize(("command", "arguments", "words"), MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(
    command: ModuleType,
    arguments: Callable[[Result], list[object]],
    words: list[str],
    trained: Result,
    call: Callable[..., int],
    capsys,
):
    given = arguments(trained)
    capsys.readouterr()
    assert call(command, *given) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and error.endswith("\n")
    missing = [word for word in words if word not in error.replace("\\", "/")]
    assert not missing, error
    assert not Path("runs").exists()
