"""Darknet weight files for the tests of the network."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def darknet_file(parity: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """`darknet_file(classes)`: a seeded Darknet weights file, written once by the independent script."""
    folder = tmp_path_factory.mktemp("darknet")

    def write(classes: int) -> Path:
        path = folder / f"{classes}.weights"
        if not path.exists():
            script = parity / "make_darknet_weights.py"
            subprocess.run([sys.executable, script, path, "--classes", str(classes)], check=True)
        return path

    return write
