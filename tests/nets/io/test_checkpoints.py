"""Checkpoints: whole or not at all, and nothing in them is executed."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from nets.io import checkpoints
from nets.yolo.yolov4_tiny import YOLOv4Tiny
from utils.core.errors import UserError
from utils.core.schema import Config

NETWORK = YOLOv4Tiny(2)
TENSORS = NETWORK.state_dict()


def content(**changes: Any) -> dict[str, Any]:
    """A checkpoint for the classes cat and Hündin."""
    return {**checkpoints.describe(NETWORK, Config(), ["cat", "Hündin"], epoch=3), **changes}


def test_content_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    saved = content()
    checkpoints.save(path, saved)
    loaded = checkpoints.load(path)
    for name, tensor in TENSORS.items():
        assert torch.equal(loaded["model"][name], tensor)
    for key in ("config", "names", "anchors", "epoch"):
        assert loaded[key] == saved[key]
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"], "no temporary file may stay"


@pytest.mark.parametrize("stage", ["writing", "syncing", "renaming"])
def test_a_crash_while_saving_keeps_the_old_file(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.pt"
    checkpoints.save(path, content(epoch=1))
    before = path.read_bytes()

    def half_written(content: Any, file: Any) -> None:
        file.write(b"half a checkpoint")
        raise OSError("disk full")

    def crash(*args: Any) -> None:
        raise OSError("killed")

    with monkeypatch.context() as patch:
        if stage == "writing":
            patch.setattr(torch, "save", half_written)
        else:
            patch.setattr(*((os, "fsync") if stage == "syncing" else (Path, "replace")), crash)
        with pytest.raises(UserError, match=r"cannot write .*last\.pt: (disk full|killed)"):
            checkpoints.save(path, content(epoch=2))
    assert path.read_bytes() == before and checkpoints.load(path)["epoch"] == 1
    checkpoints.save(path, content(epoch=3))  # what the crash left behind is no obstacle
    assert checkpoints.load(path)["epoch"] == 3


def test_the_file_is_whole_and_on_disk_before_it_takes_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (order.append("fsync"), fsync(handle))[1])

    def watched(source: Path, target: Path) -> None:
        order.append("replace")
        assert checkpoints.load(Path(source))["epoch"] == 1
        replace(source, target)

    monkeypatch.setattr(Path, "replace", watched)
    checkpoints.save(tmp_path / "last.pt", content(epoch=1))
    assert order == ["fsync", "replace"]


class Bomb:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("exploded"),))


def test_nothing_in_a_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"format": checkpoints.FORMAT, "model": Bomb()}, "bomb.pt")
    with pytest.raises(UserError, match=r"bomb.pt: not readable"):
        checkpoints.load(Path("bomb.pt"))
    assert not Path("exploded").exists()


BROKEN = {
    "empty": b"",
    "text": b"these are no weights\n",
    "zip": b"PK\x03\x04 and then nothing",
    "pickle": pickle.dumps({"format": "other"}),
    "memo": b"h\x01.",
    "stack": b".",
    "image": b"\x89PNG\r\n\x1a\n" + bytes(64),
    "zeros": bytes(1000),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_files_that_are_no_checkpoint_end_in_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.pt"
    path.write_bytes(BROKEN[kind])
    with pytest.raises(UserError, match=r"bad\.pt") as caught:
        checkpoints.load(path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_truncated_a_missing_and_a_foreign_file_end_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoints.save(path, content())
    path.write_bytes(path.read_bytes()[:2000])
    torch.save({"w": torch.rand(3)}, tmp_path / "foreign.pt")
    for name, reason in (
        ("last.pt", "not readable"),
        ("none.pt", "no such file"),
        ("foreign.pt", "not a checkpoint of this project"),
    ):
        with pytest.raises(UserError, match=rf"{name}: {reason}") as caught:
            checkpoints.load(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder, expected a file"):
        checkpoints.load(tmp_path)
