"""Files that backends make from a model are made again when what they were made from changes."""

import sys
from pathlib import Path

import pytest
import torch

from nets.inference.backends import ModelSpec, base
from nets.yolo.yolov4_tiny import build_model
from utils.core.config import make_config

BLOCK = """
from torch import nn

class Scale(nn.Module):
    def __init__(self, channels):
        super().__init__()

    def forward(self, x):
        return x * {factor}
"""


@pytest.mark.parametrize("change", ["weights", "project", "torch", "block"])
def test_files_in_the_cache_do_not_outlive_what_they_were_made_from(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "fingerprinted_block.py"
    file.write_text(BLOCK.format(factor=1))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "fingerprinted_block", raising=False)
    config = make_config({"phi": {"feat1": "fingerprinted_block:Scale"}, "input_size": 64})
    network = build_model(config, 2)
    spec = ModelSpec(network, config, ("a", "b"))
    before = spec.fingerprint
    assert spec.fingerprint == before
    if change == "weights":
        network.predict32.weight.data[0, 0] += 1
    elif change == "project":
        monkeypatch.setattr(base, "hash_code", lambda: "other")
    elif change == "torch":
        monkeypatch.setattr(torch, "__version__", "0.0")
    else:
        file.write_text(BLOCK.format(factor=2))
    assert spec.fingerprint != before
