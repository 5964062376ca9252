import errno
import os
import threading
from contextlib import suppress

import pytest

from utils.core.errors import UserError
from utils.core.inputs import read_file
from utils.core.outputs import claimed_outputs, new_file, write_file

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write_half(path, error):
    with new_file(path) as part:
        part.write_text("half of the sec")
        raise error


def test_an_output_that_is_read_is_refused_before_it_is_overwritten(tmp_path):
    path = tmp_path / "best.pt"
    path.write_bytes(b"weights")
    (tmp_path / "hard").hardlink_to(path)
    with (
        claimed_outputs(("--json", tmp_path / "hard"), ("--out", None)),
        pytest.raises(UserError, match=r"--json .*hard: would overwrite a file"),
    ):
        read_file(path)
    assert read_file(path) == b"weights", "a claim ends with its block"
    assert path.read_bytes() == b"weights"


def test_an_input_is_not_overwritten_even_if_its_refusal_went_unnoticed(tmp_path):
    path = tmp_path / "label.txt"
    path.write_text("0 0.5 0.5 1 1")
    with claimed_outputs(("--json", path)):
        with suppress(UserError):
            read_file(path)
        with pytest.raises(UserError, match=r"--json .*label.txt: would overwrite a file"):
            write_file(path, "{}")
    assert path.read_text() == "0 0.5 0.5 1 1" and len(list(tmp_path.iterdir())) == 1
    write_file(path, "a new command")


def test_two_outputs_cannot_be_one_file(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "out.json")
    both = claimed_outputs(("--json", tmp_path / "out.json"), ("--out", tmp_path / "link"))
    with pytest.raises(UserError, match=r"--out .*link: is also the file of --json"), both:
        pass


def test_what_was_written_can_be_read_back(tmp_path):
    path = tmp_path / "a.onnx"
    path.write_text("old")
    with claimed_outputs(("--out", path)):
        write_file(path, "new")
        (tmp_path / "other").write_text("may get the inode of the former file")
        assert read_file(tmp_path / "other") and read_file(path) == b"new"


def test_outputs_may_share_a_device():
    with claimed_outputs(("--json", "/dev/null"), ("--out", "/dev/null")):
        write_file("/dev/null", "text")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("folder", "is a folder, expected a file"),
        ("file/x.json", "file is not a folder"),
        ("x" * 300, "file name too long"),
        ("loop", "loop"),
        ("a\0b", "null (byte|character)"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_the_work(tmp_path, name, expected):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    claims = claimed_outputs(("--json", f"{tmp_path}/{name}"))
    with pytest.raises(UserError, match=expected), claims:
        pass


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_file(path, "first")
    with pytest.raises(UserError, match=r"cannot write .*a.txt: no space left on device: free"):
        write_half(path, FULL)
    assert path.read_text() == "first"
    assert names(path.parent) == ["a.txt"]


def test_an_interrupt_leaves_no_unfinished_file(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_half(tmp_path / "a.txt", KeyboardInterrupt())
    assert names(tmp_path) == []


def test_a_full_device_is_a_user_error():
    with pytest.raises(UserError, match="cannot write /dev/full: no space left"):
        write_file("/dev/full", "text")


def test_a_link_keeps_leading_to_the_file_that_is_written(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    write_file(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


def test_file_names_that_are_not_utf8_can_be_written_as_text(tmp_path):
    write_file(tmp_path / "a.json", '"\udcff"')
    assert (tmp_path / "a.json").read_bytes() == b'"\\udcff"'


def test_processes_that_write_the_same_file_do_not_mix(tmp_path):
    path = tmp_path / "a"
    texts = [str(digit) * 100_000 for digit in range(4)]
    threads = [threading.Thread(target=write_file, args=(path, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts
    assert names(tmp_path) == ["a"]
