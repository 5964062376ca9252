"""The command line, and the one ratio that must not be lost."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from utils.benchmark import __main__ as command
from utils.benchmark.data import step_clock
from utils.benchmark.session import BenchmarkOptions, BenchmarkSession, benchmark_config
from utils.core.timing import Budget, Stat, interleave
from utils.engine.experiment import Result

# Least speed of a training step as a multiple of the baseline's
NATIVE_BF16_RATIO = 1.2
FP32_RATIO = 0.8


def test_a_section_is_printed_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, call: Callable[..., int]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("device=cpu", "precision=fp32", "threads=1")
    assert call(command, "post", "--quick", "--json", "speed.json", *words) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("machine: ") and "targets met: " in shown
    assert "post: milliseconds per image" in shown
    assert [path.name for path in tmp_path.iterdir()] == ["speed.json"], "nothing else is left"
    content = json.loads(Path("speed.json").read_text())
    top = ["command", "machine", "settings", "sections", "targets", "seconds"]
    assert list(content) == top and list(content["sections"]) == ["post"]
    machine = ["device", "cpu", "cores", "threads", "gpu", "precision", "versions"]
    assert list(content["machine"]) == machine
    assert content["machine"]["precision"] == "fp32" and content["machine"]["threads"] == 1
    assert content["settings"]["input_size"] == [64, 64] and content["settings"]["quick"] is True
    assert all(row["value"]["n"] == 2 for row in content["sections"]["post"]["rows"])


def test_a_trained_network_brings_its_experiment(
    trained: Result, call: Callable[..., int], capsys
) -> None:
    words = ("--weights", trained.run, "--rounds", 1, "--format", "markdown")
    assert call(command, "post", *words) == 0
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
        (["post", "--rounds", "0"], "--rounds: expected an integer from 1"),
        (["post", "--seconds", "-1"], "--seconds: expected a number from 0.001"),
        (["post", "--weights", "model.onnx"], "--weights model.onnx: an ONNX file cannot train"),
        (["post", "--weights", "nowhere.pt"], "nowhere.pt: no such file"),
    ],
)
def test_mistakes_are_one_line(
    call: Callable[..., int], capsys, arguments: list[str], message: str
) -> None:
    assert call(command, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.slow
def test_our_training_step_beats_the_baseline() -> None:
    """Interleaved, up to three times: a machine that is busy for a moment is no regression."""
    words = ["input_size=224", "train.batch_size=8", "device=cpu", "threads=1"]
    config = benchmark_config(None, None, words, quick=True)
    with BenchmarkSession(BenchmarkOptions(config, quick=True)) as session:
        trainer = session.trainer(session.precision)
        clocks = {
            "baseline": session.baseline(training=True).clock("step"),
            "ours": step_clock(trainer, session.batch),
        }
        bound = NATIVE_BF16_RATIO if session.precision == "bf16" else FP32_RATIO
        ratios = []
        for _ in range(3):
            times = interleave(clocks, Budget(0.0, 5, 5))
            ratios.append(Stat.of(times["baseline"] / times["ours"]).median)
            if ratios[-1] > bound:
                return
    pytest.fail(f"times as fast as the baseline step: {ratios}, expected more than {bound}")
