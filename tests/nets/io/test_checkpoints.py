"""Checkpoints: whole or not at all, and nothing in them is executed."""

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nets import load_model
from nets.io import checkpoints
from nets.yolo.yolov4_tiny import YOLOv4Tiny, build_model
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
        with pytest.raises((OSError, UserError), match=r"disk full|killed"):
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


# content that is read, but is not what it should be


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in content().items() if name != key}


def with_tensor(name: str, tensor: Any) -> dict[str, Any]:
    return content(model={**TENSORS, name: tensor})


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value, value]  # 2 ** levels values, if they are counted one by one
    return value


def with_config(**values: Any) -> dict[str, Any]:
    return content(config={**Config().model_dump(mode="json"), **values})


BIAS = "backbone.stem1.bn.bias"
VARIANCE = "head32.bn.running_var"
MALFORMED: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "no names": (lambda: without("names"), r"names is missing"),
    "a number as names": (lambda: content(names=3), r"names: expected a valid list, got 3"),
    "names of another type": (lambda: content(names=["a", 2]), r"names\.1: expected .* string"),
    "equal names": (lambda: content(names=["a", "a"]), r"names: class 'a' is listed twice"),
    "too few names": (lambda: content(names=["a"]), r"1 class names, .* heads have 2 classes"),
    "text as epoch": (lambda: content(epoch="abc"), r"epoch: expected a valid integer, got 'abc'"),
    "negative epoch": (lambda: content(epoch=-1), r"epoch: expected a value greater than or equal"),
    "huge epoch": (lambda: content(epoch=-(10**70)), r"epoch: expected .* got a huge integer"),
    "five anchors": (lambda: content(anchors=[[1.0, 2.0]] * 5), r"anchors: expected at least 6"),
    "NaN anchor": (lambda: content(anchors=[[float("nan"), 2.0]] * 6), r"anchors\.0\.0: expected"),
    "huge anchor": (lambda: content(anchors=[[1e300, 2.0]] * 6), r"anchors\.0\.0: expected"),
    "list as config": (lambda: content(config=[1]), r"config: expected a valid dictionary"),
    "endless config": (lambda: with_config(phi={"a": nested(60)}), r"config: expected at most"),
    "deep config": (lambda: with_config(phi={"a": nested(100)}), r"config: expected at most"),
    "tensor in config": (lambda: with_config(seed=torch.ones(2)), r"config: expected plain values"),
    "huge integer": (lambda: with_config(seed=10**70), r"config: expected plain values"),
    "unknown key": (lambda: with_config(sed=3), r"config: unknown key 'sed'"),
    "unknown block": (
        lambda: with_config(phi="cbm"),
        r"bad\.pt: phi: unknown attention block 'cbm'",
    ),
    "another block": (lambda: with_config(phi="se"), r"attention\.feat1\.fc\.0\.weight is missing"),
    "list as model": (lambda: content(model=[1]), r"model: expected a valid dictionary"),
    "number as tensor": (
        lambda: with_tensor(BIAS, 3),
        rf"model\.{BIAS}: expected .* Tensor, got 3",
    ),
    "integer as name": (
        lambda: content(model={3: torch.ones(1)}),
        r"expected .* string",
    ),
    "NaN": (lambda: with_tensor(BIAS, torch.full((32,), float("nan"))), rf"{BIAS}: contains NaN"),
    "negative variance": (lambda: with_tensor(VARIANCE, -torch.ones(512)), r"negative variances"),
    "a shape only": (lambda: with_tensor(BIAS, torch.empty(32, device="meta")), r"no values"),
    "sparse": (lambda: with_tensor(BIAS, torch.ones(32).to_sparse()), r"expected a dense tensor"),
    "complex": (lambda: with_tensor(BIAS, torch.ones(32) + 1j), r"type torch\.complex64"),
    "expanded": (lambda: with_tensor(BIAS, torch.ones(1).expand(10**12)), r"has fewer values"),
    "another shape": (lambda: with_tensor(BIAS, torch.ones(31)), rf"{BIAS} has shape \(31,\)"),
    "integers": (
        lambda: with_tensor(BIAS, torch.ones(32).int()),
        rf"{BIAS} is of type torch\.int32",
    ),
    "unknown tensor": (lambda: with_tensor("more", torch.ones(3)), r"unknown tensor more"),
    "no heads": (lambda: content(model={BIAS: torch.ones(32)}), r"the heads have no classes"),
    "head of another shape": (
        lambda: with_tensor("predict32.bias", torch.ones(20)),
        r"predict32: bias \(20,\) and weight \(21, 512, 1, 1\), expected",
    ),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_content_ends_in_one_line(kind: str, tmp_path: Path) -> None:
    make, words = MALFORMED[kind]
    path = tmp_path / "bad.pt"
    checkpoints.save(path, make())
    with pytest.raises(UserError, match=words) as caught:
        load_model(path, device="cpu")
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message and len(message) < 700
    assert "weights_only" not in message


def rewritten(data: bytes, change: Callable[[str, bytes], bytes], method: int) -> bytes:
    """The zip archive of a checkpoint with other records and right checksums."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(target, "w", method) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return target.getvalue()


def flipped(data: bytes) -> bytes:
    """One bit of a tensor is another, as after an error of a disk."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "one bit": (flipped, r"the checksum of archive/data/\d+ is wrong"),
    "compressed": (
        lambda data: rewritten(data, lambda name, record: record, zipfile.ZIP_DEFLATED),
        "its records are compressed",
    ),
    "short records": (
        lambda data: rewritten(
            data,
            lambda name, record: record[:4],
            zipfile.ZIP_STORED,
        ),
        "damaged, cut short",
    ),
    "another pickle": (
        lambda data: rewritten(
            data,
            lambda name, record: b"h\x01." if name.endswith("pkl") else record,
            zipfile.ZIP_STORED,
        ),
        "damaged, cut short",
    ),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_to_the_archive_is_noticed(kind: str, tmp_path: Path) -> None:
    damage, words = DAMAGES[kind]
    path = tmp_path / "bad.pt"
    checkpoints.save(path, content())
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=rf"bad\.pt: not readable as PyTorch weights: .*{words}"):
        checkpoints.load(path)


def test_a_pickled_network_is_explained(tmp_path: Path) -> None:
    torch.save(NETWORK, tmp_path / "whole.pth")
    with pytest.raises(UserError, match=r"nets\.yolo.*save the network's state_dict\(\) instead"):
        checkpoints.load(tmp_path / "whole.pth")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "best.pt")
    with pytest.raises(UserError, match="is a FIFO, expected a file"):
        load_model(tmp_path / "best.pt")


def test_a_network_is_compared_with_the_file_before_it_is_allocated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = []

    def watched(*arguments: Any) -> YOLOv4Tiny:
        devices.append(torch.get_default_device().type)
        return build_model(*arguments)

    monkeypatch.setattr(checkpoints, "build_model", watched)
    checkpoints.save(tmp_path / "a.pt", with_config(phi={"name": "bam", "num_layers": 64}))
    with pytest.raises(UserError, match="do not fit"):
        load_model(tmp_path / "a.pt", device="cpu")
    assert devices == ["meta"]
    checkpoints.save(tmp_path / "b.pt", content())
    load_model(tmp_path / "b.pt", device="cpu")
    assert devices == ["meta", "meta", "cpu"]
