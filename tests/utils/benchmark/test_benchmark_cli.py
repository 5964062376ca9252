"""The command line, and the one ratio that must not be lost."""

import json
import sys
from pathlib import Path

import pytest

from utils.benchmark.__main__ import main
from utils.benchmark.bench import Bench, Settings, make_config
from utils.benchmark.data import step_clock
from utils.core.cli import run_command
from utils.core.timing import Budget, Stat, interleave
from utils.engine.experiment import Result

RATIO = 1.2  # a training step's, over the naive one's, where bf16 is native; without, it must not be slower by more
SLOWEST = 0.8


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["benchmark", *map(str, arguments)])
    try:
        run_command(main)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_a_section_is_printed_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = (
        "post",
        "--quick",
        "--json",
        "speed.json",
        "device=cpu",
        "precision=fp32",
        "threads=1",
    )
    assert call(monkeypatch, *arguments) == 0
    shown = capsys.readouterr().out
    found = json.loads(Path("speed.json").read_text())
    assert (
        shown.startswith("machine: ")
        and "post: milliseconds an image" in shown
        and "targets met: " in shown
    )
    assert list(found["sections"]) == ["post"]
    assert found["machine"].keys() == {
        "device",
        "processor",
        "cores",
        "threads",
        "gpu",
        "precision",
        "versions",
    }
    assert found["machine"]["precision"] == "fp32" and found["machine"]["threads"] == 1
    assert found["settings"]["input_size"] == [64, 64] and found["settings"]["quick"] is True
    assert all(row["value"]["n"] == 2 for row in found["sections"]["post"]["rows"])
    assert [path.name for path in tmp_path.iterdir()] == ["speed.json"], (
        "nothing else is left behind"
    )


def test_a_trained_network_brings_its_experiment(
    trained: Result, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    assert (
        call(monkeypatch, "post", "--weights", trained.run, "--rounds", 1, "--format", "markdown")
        == 0
    )
    shown = capsys.readouterr().out
    assert "at 64x64, batches of 4" in shown and "## post: " in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["infernce"], "section 'infernce' does not exist; did you mean 'inference'?"),
        (
            ["post", "train.batchsize=3"],
            "unknown key 'train.batchsize'; did you mean 'train.batch_size'?",
        ),
        (["post", "--rounds", "0"], "--rounds 0: expected at least 1"),
        (["post", "--seconds", "-1"], "--seconds -1: expected more than 0"),
        (["post", "--weights", "model.onnx"], "--weights model.onnx: an ONNX file cannot train"),
        (["post", "--weights", "nowhere.pt"], "nowhere.pt: no such weights file"),
    ],
)
def test_mistakes_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys, arguments: list[str], message: str
) -> None:
    assert call(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.slow
def test_our_training_step_beats_the_naive_one() -> None:
    """In turns, three times at most: a machine that is busy just now is no regression."""
    config = make_config(
        None, None, ["input_size=224", "train.batch_size=8", "device=cpu", "threads=1"], quick=True
    )
    with Bench(Settings(config, quick=True)) as bench:
        trainer = bench.trainer(bench.precision)
        naive = bench.naive(training=True).clock("step")
        clocks = {"naive": naive, "ours": step_clock(trainer, bench.batch)}
        bound, ratios = RATIO if bench.precision == "bf16" else SLOWEST, []
        for _ in range(3):
            times = interleave(clocks, Budget(0.0, 5, 5))
            ratios.append(Stat.of(times["naive"] / times["ours"]).median)
            if ratios[-1] > bound:
                return
    pytest.fail(f"times as fast as the naive step: {ratios}, expected more than {bound}")
