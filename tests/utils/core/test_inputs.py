import errno
import os
import time

import pytest

from utils.core import inputs
from utils.core.inputs import ReadError, open_input, read_file, walk_folder


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("missing", "no such file"),
        ("folder", "is a folder, expected a file"),
        ("fifo", "is a FIFO, expected a file"),
        ("loop", "symbolic links"),
        ("dangling", "the link leads nowhere"),
        ("a\0b", "null (byte|character)"),
        ("x" * 300, "file name too long"),
    ],
)
def test_what_is_not_a_regular_file_is_refused_at_once(tmp_path, name, expected):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    start = time.monotonic()
    with pytest.raises(ReadError, match=expected) as caught:
        read_file(f"{tmp_path}/{name}", "--config")
    assert str(caught.value).startswith("--config ")
    assert time.monotonic() - start < 5  # a FIFO would block, an outage be waited for


def test_a_device_is_refused():
    with pytest.raises(ReadError, match="is a device, expected a file"):
        open_input("/dev/zero")


def test_a_file_larger_than_the_limit_is_refused(tmp_path):
    (tmp_path / "big").write_bytes(bytes(11))
    assert read_file(tmp_path / "big", max_bytes=11) == bytes(11)
    with pytest.raises(ReadError, match="11 bytes, expected at most 10"):
        read_file(tmp_path / "big", max_bytes=10)


def test_a_short_outage_is_waited_for(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"content")
    real, left = inputs._open, [2]

    def flaky(path, title):
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(errno.ESTALE, "stale file handle")
        return real(path, title)

    monkeypatch.setattr(inputs, "_open", flaky)
    assert read_file(tmp_path / "a") == b"content"
    assert left == [-1]


def test_a_long_outage_is_an_error(tmp_path, monkeypatch):
    def broken(path, title):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(inputs, "_open", broken)
    monkeypatch.setattr(inputs, "RETRY_SECONDS", 0.2)
    with pytest.raises(ReadError, match="a: input/output error") as caught:
        read_file("a")
    assert caught.value.is_outage


def refuse(error):
    raise error


def test_links_to_folders_elsewhere_are_followed_once(tmp_path):
    for folder in ("home/own/inner", "elsewhere/deep", "third"):
        (tmp_path / folder).mkdir(parents=True)
    for name, target in {
        "home/a-link": "../elsewhere/deep",
        "home/b-link": "../elsewhere",  # the first one leads into it
        "home/c-link": "../elsewhere",
        "home/inside": "own",
        "home/above": "..",
        "home/itself": ".",
        "home/dangling": "nowhere",
        "elsewhere/back": "../home/own",
        "elsewhere/cycle": "../elsewhere",
        "elsewhere/on": "../third",
        "third/round": "../elsewhere/deep",
    }.items():
        (tmp_path / name).symlink_to(target)
    (tmp_path / "link").symlink_to("home")
    for root in (tmp_path / "home", tmp_path / "link"):
        found = [str(folder.relative_to(root)) for folder, _, _ in walk_folder(root, refuse)]
        assert found == [".", "a-link", "b-link", "b-link/on", "own", "own/inner"]


def test_folders_may_be_left_out_while_walking(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "c").mkdir()
    found = []
    for folder, names, _ in walk_folder(tmp_path, refuse):
        found.append(folder.name)
        names[:] = [name for name in names if name != "a"]
    assert found == [tmp_path.name, "c"]
