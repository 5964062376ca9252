"""Wrong words of a command line are told in one line."""

from collections.abc import Callable
from types import ModuleType

import pytest

import compare as compare_cli
import eval as eval_cli
import export as export_cli
import nets.__main__ as nets_cli
import nets.attention.check as check_cli
import nets.cost_table as cost_cli
import predict as predict_cli
import train as train_cli
import utils.benchmark.__main__ as benchmark_cli

WORDS: list[tuple[ModuleType, list[str], str]] = [
    (train_cli, [], "one of the arguments --config --resume --explain is required; see train.py"),
    (train_cli, ["--config", "a", "--resume", "b"], "--resume: not allowed with argument --config"),
    (train_cli, ["--confg", "a"], "unknown option --confg; did you mean '--config'?"),
    (train_cli, ["--config"], "--config: expected one argument"),
    (train_cli, ["--config", ""], "--config: expected a value, got ''"),
    (train_cli, ["--config="], "--config: expected a value, got ''"),
    (train_cli, ["--resume", "a", "--x" * 10**5], "unknown option --x--x"),
    (train_cli, ["--explain", "seed=1"], "--explain takes no KEY=VALUE"),
    (eval_cli, ["--weights", ""], "--weights: expected a value, got ''"),
    (eval_cli, ["--wieghts=a"], "unknown option --wieghts; did you mean '--weights'?"),
    (eval_cli, ["--json", "a.json", "-x"], "unrecognized arguments: -x"),
    (predict_cli, ["--source", "a", ""], "a: expected a value, got ''"),
    (predict_cli, ["--mode", "vid"], "--mode: invalid choice: 'vid'"),
    *[
        (predict_cli, [option, value], f"{option}: expected a number from 0 to 1, got '{value}'")
        for option in ("--score", "--nms-iou")
        for value in ("nan", "-1", "2", "x", "inf", "1e999")
    ],
    *[
        (export_cli, ["--format", "onnx", "--opset", value], "--opset: expected an integer from 1")
        for value in ("abc", "-1", "1.5", str(10**30), "9" * 5000)
    ],
    (compare_cli, ["--config"], "--config: expected at least one argument"),
    (compare_cli, ["--phi"], "--phi: expected at least one argument"),
    (nets_cli, ["--classes", "0"], "--classes: expected an integer from 1 to 100,000, got '0'"),
    (cost_cli, ["--size", "31"], "--size: expected a multiple of 32 from 32 to 4,096, got '31'"),
    (cost_cli, ["--rounds", "0"], "--rounds: expected an integer from 1"),
    (cost_cli, ["--threads", "-1"], "--threads: expected an integer from 0 to 1,024, got '-1'"),
    (benchmark_cli, ["--seconds", "nan"], "--seconds: expected a number from 0.001 to 100,000"),
    (benchmark_cli, ["--rounds", "0"], "--rounds: expected an integer from 1"),
    (check_cli, ["se", "--channels", "0"], "--channels: expected an integer from 1 to 4,096"),
    (check_cli, ["se", "reduction=[1"], "reduction=: not valid YAML"),
]


@pytest.mark.parametrize(("command", "arguments", "message"), WORDS)
def test_wrong_words_are_one_line(
    command: ModuleType,
    arguments: list[str],
    message: str,
    call: Callable[..., int],
    capsys,
):
    assert call(command, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}") and error.count("\n") == 1 and len(error) < 400
