"""The words of a command line: which belong to an option, and which change the configuration."""

import argparse
from pathlib import Path

import pytest

from utils.core.arguments import separate_overrides
from utils.core.errors import UserError


def separated(source: list[str] | None, *overrides: str) -> argparse.Namespace:
    args = argparse.Namespace(source=source, overrides=list(overrides))
    separate_overrides(args, "source")
    return args


@pytest.mark.parametrize(
    ("words", "source", "overrides"),
    [
        (None, None, []),
        (["a.jpg"], ["a.jpg"], []),
        (["a.jpg", "predict.score=0.3"], ["a.jpg"], ["predict.score=0.3"]),
        (["x=1", "rtsp://host/?a=b", "y.z="], ["rtsp://host/?a=b"], ["x=1", "y.z="]),
        (["5=a.jpg", "./x=y.jpg", "is=there.jpg"], ["5=a.jpg", "./x=y.jpg", "is=there.jpg"], []),
    ],
)
def test_overrides_are_taken_out_of_an_option(words, source, overrides, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("is=there.jpg").touch()
    args = separated(words, "last=1")
    assert (args.source, args.overrides) == (source, [*overrides, "last=1"])


def test_an_option_of_overrides_only_is_refused():
    with pytest.raises(UserError, match="--source: expected a value, got only device=cpu"):
        separated(["device=cpu"])
