import os
import signal
import time

import filelock
import pytest

from utils.core import file_groups, signals
from utils.core.errors import UserError
from utils.core.file_groups import LOCK, YOUNG, new_files, remove_unfinished
from utils.core.outputs import unfinished_name
from utils.core.signals import Stopped


@pytest.fixture
def pair(tmp_path):
    files = [tmp_path / "a.xml", tmp_path / "a.bin"]
    for file in files:
        file.write_text("old")
    return files


def write(files):
    with new_files(files) as parts:
        for part in parts:
            part.write_text("new")


def state(files):
    """Their contents, and what else is in their folder."""
    others = {path.name for path in files[0].parent.iterdir()} - {file.name for file in files}
    return [file.read_text() for file in files], others


def test_all_files_are_replaced_or_none(pair, monkeypatch):
    new_file = file_groups.new_file

    def full(path, name=None):
        if path == pair[1]:
            raise UserError("no space left")
        return new_file(path, name)

    monkeypatch.setattr(file_groups, "new_file", full)
    with pytest.raises(UserError, match="no space left"):
        write(pair)
    assert state(pair) == (["old", "old"], set())
    monkeypatch.undo()
    write(pair)
    assert state(pair) == (["new", "new"], set())


def test_a_signal_does_not_part_files(pair, monkeypatch):
    def move(part, file):
        if file.suffix == ".xml":
            signals._stop(signal.SIGTERM, None)
        part.replace(file)

    monkeypatch.setattr(file_groups.shutil, "move", move)
    monkeypatch.setattr(signals, "_last", None)  # and so again after the test
    with pytest.raises(Stopped):
        write(pair)
    assert state(pair) == (["new", "new"], set())


def test_folders_of_killed_processes_are_removed(pair):
    abandoned, used, young = (pair[0].with_name(unfinished_name()) for _ in range(3))
    for folder in (abandoned, used, young):
        folder.mkdir()
        (folder / "half").touch()
    abandoned.with_suffix(".part.xml").touch()  # killed between two names
    with filelock.FileLock(used / LOCK):
        for folder in (abandoned, used):
            os.utime(folder, (time.time() - 2 * YOUNG,) * 2)
        write(pair)
        assert state(pair) == (["new", "new"], {used.name, young.name})
        remove_unfinished(pair[0].parent)
        assert used.exists()
