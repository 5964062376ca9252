"""eval.py: the numbers and plots that it writes, also between train.py and predict.py."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import eval as eval_cli
from utils.core.config import PROJECT_DIR
from utils.engine.experiment import Result

KEYS = {"map50", "map50_95", "voc_ap50", "per_class", "images", "seconds", "params", "gflops"}


@pytest.mark.slow
def test_train_evaluate_predict_in_an_empty_folder(
    call: Callable[..., int], capsys: pytest.CaptureFixture[str]
):
    """A newcomer's three commands, the long ones as real processes, piped."""

    def run(*command: object) -> str:
        done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert (
            "\r" not in done.stdout + done.stderr and "it/s" not in done.stderr
        )  # no bars in a pipe
        return done.stdout

    sizes = (
        "input_size=64",
        "data.shapes_train=16",
        "data.shapes_val=8",
        "train.batch_size=4",
        "train.optimizer=sgd",
        "train.epochs=2",
    )
    output = run(
        PROJECT_DIR / "train.py", "--config", "shapes.yaml", *sizes, "device=cpu", "threads=1"
    )
    assert (
        "epoch 1/2" in output
        and "eval.py" in output
        and "predict.py" in output
        and "mean" in output
    )
    assert call(eval_cli, "--json", "numbers.json") == 0
    output = capsys.readouterr().out
    numbers = json.loads(Path("numbers.json").read_text())
    expected = json.loads(Path("runs/shapes/metrics.json").read_text())
    assert numbers.keys() >= KEYS and numbers["map50"] == expected["map50"] and "circle" in output
    run(PROJECT_DIR / "predict.py", "--json", "list.json", "--score", 0)
    entries = json.loads(Path("list.json").read_text())
    assert len(entries) == 8 and entries[0].keys() == {"image", "width", "height", "detections"}
    assert entries[0]["detections"][0].keys() == {"box", "score", "class", "name"}
    assert len(list(Path("runs/predict").iterdir())) == 8


@pytest.mark.parametrize("option", ["--plots", "--pictures"])
def test_eval_writes_numbers_and_plots(
    option: str, trained: Result, call: Callable[..., int], capsys
):
    outputs = ("--json", "n.json", option, "plots")
    arguments = ("--weights", trained.run, "--split", "train", *outputs, "eval.nms_iou=0.5")
    assert call(eval_cli, *arguments) == 0
    numbers = json.loads(Path("n.json").read_text())
    assert numbers.keys() >= KEYS and numbers["images"] == 16
    assert Path("plots/confusion.png").is_file()
    assert numbers["per_class"]["circle"].keys() >= {"ap50", "ap50_95", "images", "objects"}
    assert "AP50" in capsys.readouterr().out
