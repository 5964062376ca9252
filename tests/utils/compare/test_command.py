"""Options of compare.py that do not fit together."""

import re

import pytest

import compare as command
from utils.core.errors import UserError


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--detections d", "needs --truth"),
        (
            "--detections d --truth t --phi se",
            "--phi: cannot be given here; --detections compares files",
        ),
        ("--verify d --seeds 1 2", "--seeds: cannot be given here; --verify reads a finished"),
        ("--verify d train.epochs=2", "--verify with train.epochs=...: only keys of data"),
        ("--detections d --truth t --control params", "--control: cannot be given here"),
        ("--detections d --truth t --seeds 0 train.epochs=3", "train.epochs=3: a key of trainings"),
        ("--config c --truth t", "--truth: belongs to --detections"),
        ("--config c --detections d", "not allowed with"),
        ("--phi se", "--config --detections is required"),
        ("--detections missing --truth missing.json", "missing.json: no such file"),
    ],
)
def test_options_that_do_not_fit(words: str, message: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.argv", ["compare.py", *words.split()])
    with pytest.raises(UserError, match=re.escape(message)):
        command.main()
