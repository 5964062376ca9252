"""Suggestions for unknown names, and optional packages."""

from pathlib import Path

import pytest

from utils.core.errors import UserError, nearest, require_package, without_login


def test_nearest_suggests_or_lists() -> None:
    assert nearest("cbm", ["se", "cbam", "eca"]) == "; did you mean 'cbam'?"
    assert nearest("zzz", ["se", "cbam"]) == "; expected one of: se, cbam"
    assert nearest("zzz", []) == ""
    assert nearest(3, [1, 2]) == "; expected one of: 1, 2"  # type: ignore[arg-type, list-item]


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://me:secret@cam/live", "rtsp://cam/live"),
        ("rtsp://me:p@ss@cam", "rtsp://cam"),
        ("http://cam/live?mail=a@b", "http://cam/live?mail=a@b"),
        ("http://cam?mail=a@b", "http://cam?mail=a@b"),
        ("films/me@home.mp4", "films/me@home.mp4"),
    ],
)
def test_addresses_lose_name_and_password(address: str, shown: str) -> None:
    assert without_login(address) == shown


def test_a_missing_package_is_a_user_error() -> None:
    with pytest.raises(
        UserError, match=r"^backend=x: no_such is not installed: pip install no_such"
    ):
        require_package("no_such.module", "backend=x")


def test_a_folder_of_the_name_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "no_such_tracker").mkdir()  # as W&B and others make one in the working directory
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="no_such_tracker is not installed"):
        require_package("no_such_tracker", "train.log=x")
