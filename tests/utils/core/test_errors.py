"""Suggestions for unknown names, and optional packages."""

import pytest

from utils.core.errors import UserError, nearest, require_package


def test_nearest_suggests_or_lists() -> None:
    assert nearest("cbm", ["se", "cbam", "eca"]) == "; did you mean 'cbam'?"
    assert nearest("zzz", ["se", "cbam"]) == "; expected one of: se, cbam"
    assert nearest("zzz", []) == ""
    assert nearest(3, [1, 2]) == "; expected one of: 1, 2"  # type: ignore[arg-type, list-item]


def test_a_missing_package_is_a_user_error() -> None:
    with pytest.raises(
        UserError, match=r"^backend=x: no_such is not installed: pip install no_such"
    ):
        require_package("no_such.module", "backend=x")
