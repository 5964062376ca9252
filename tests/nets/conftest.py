"""Seeded Darknet weights files for the tests of the network."""

from collections.abc import Callable
from pathlib import Path

import pytest
from darknet_files import write_weights


@pytest.fixture(scope="session")
def darknet_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """`darknet_file(classes)`: a Darknet weights file, written once."""
    folder = tmp_path_factory.mktemp("darknet")

    def write(classes: int) -> Path:
        path = folder / f"{classes}.weights"
        if not path.exists():
            write_weights(path, classes)
        return path

    return write
