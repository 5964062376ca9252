"""The commands of docs/results.md are valid, though running them needs public weights and data."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from nets.io.downloads import PUBLIC
from utils.core.config import load_config

TEXT = (Path(__file__).parents[1] / "docs" / "results.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^python (.*)$", TEXT, re.MULTILINE)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_is_valid(line: str, monkeypatch: pytest.MonkeyPatch):
    script, *words = shlex.split(line)
    monkeypatch.setattr("sys.argv", [script, *words])
    args = importlib.import_module(Path(script).stem).parse()
    (name,) = args.config if isinstance(args.config, list) else [args.config]
    config = load_config(name, args.overrides)
    weights = getattr(args, "weights", None) or config.weights
    assert weights in PUBLIC
    assert config.data.root.startswith("/data/")


def test_every_public_file_with_heads_has_its_command():
    named = {name for name in PUBLIC if f"--weights {name} " in TEXT}
    assert named == PUBLIC.keys() - {"yolov4-tiny.conv.29"}
