"""Files that backends derive from a model: made once, and again if one is damaged."""

from collections.abc import Callable
from pathlib import Path

import pytest

from nets.inference.backends.base import cached
from utils.core.errors import UserError


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [tmp_path / "model.xml", tmp_path / "model.bin"]


@pytest.fixture
def made() -> list[Path]:
    return []


@pytest.fixture
def make(made: list[Path]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        made.append(path)
        path.write_bytes(b"graph")
        path.with_suffix(".bin").write_bytes(b"weights")

    return write


def test_they_are_made_once(
    files: list[Path], make: Callable[[Path], None], made: list[Path]
) -> None:
    for _ in range(3):
        assert cached(files, make) == files[0]
    assert len(made) == 1 and made[0].parent != files[0].parent
    assert [file.read_bytes() for file in files] == [b"graph", b"weights"]
    names = sorted(path.name for path in files[0].parent.iterdir())
    assert names == ["model.bin", "model.xml", "model.xml.crc32"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda files: files[0].write_bytes(b"grapf"),
        lambda files: files[1].write_bytes(b"weight"),
        lambda files: files[1].unlink(),
        lambda files: files[0].with_name("model.xml.crc32").write_bytes(b"\xff"),
        lambda files: files[0].with_name("model.xml.crc32").unlink(),
    ],
)
def test_they_are_made_again_if_one_is_damaged(
    damage: Callable[[list[Path]], object],
    files: list[Path],
    make: Callable[[Path], None],
    made: list[Path],
) -> None:
    cached(files, make)
    damage(files)
    cached(files, make)
    assert len(made) == 2
    assert [file.read_bytes() for file in files] == [b"graph", b"weights"]


def test_files_that_could_not_be_made_leave_nothing(files: list[Path]) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise UserError("no images to calibrate on")

    with pytest.raises(UserError, match="no images"):
        cached(files, fail)
    assert not list(files[0].parent.iterdir())
