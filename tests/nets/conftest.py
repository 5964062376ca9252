"""Seeded Darknet weights files for the tests of the network."""

from collections.abc import Callable
from pathlib import Path

import pytest
from darknet_files import write_weights


@pytest.fixture(scope="session")
def darknet_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`darknet_file(classes, heads=2)`: a Darknet weights file, written once."""
    folder = tmp_path_factory.mktemp("darknet")

    def write(classes: int, heads: int = 2) -> Path:
        path = folder / f"{classes}-{heads}.weights"
        if not path.exists():
            write_weights(path, classes, heads)
        return path

    return write
