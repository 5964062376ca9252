"""How a small dataset is read: its samples, what is counted, what is refused."""

import re
from pathlib import Path

import pytest

from utils.core.config import make_config
from utils.core.errors import UserError
from utils.core.schema import DataConfig
from utils.data.loading import load_dataset
from utils.data.tools.inventory import read_inventory

UNREADABLE = "annotation unreadable"


def load(format, root, split="train", **keys):
    config = DataConfig(format=format, root=str(root), **keys)
    return load_dataset(config, split, (64, 64), progress=False)


def assert_counted(split, rule, reason):
    """The rule was applied once, and its example gives the reason."""
    assert split.report.counts == {rule: 1}
    [example] = split.report.examples[rule]
    assert re.search(reason, example), example


def assert_refused(format, root, message, **keys):
    with pytest.raises(UserError, match=message) as caught:
        load(format, root, **keys)
    assert "\n" not in str(caught.value)


def read_back(folder: Path, file_format: str):
    data = {"root": str(folder), "format": file_format}
    return read_inventory(make_config({"data": data}), progress=False)
