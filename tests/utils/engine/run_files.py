"""What tests read from the folder of a run."""

import csv
from pathlib import Path

import torch
from torch import Tensor

from nets.io import checkpoints


def weights(path: Path) -> dict[str, Tensor]:
    return checkpoints.load(path)["model"]


def assert_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


def rows_without_time(run: Path) -> list[dict[str, str]]:
    rows = list(csv.DictReader((run / "results.csv").open()))
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]
