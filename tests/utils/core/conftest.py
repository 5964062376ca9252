"""Configurations on disk."""

from pathlib import Path

import pytest

from tests.utils.core.config_files import Write


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write(name, text)`: a file in an empty folder."""

    def file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return file
