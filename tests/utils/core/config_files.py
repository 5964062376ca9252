"""Writing configurations, and what a user is told of their mistakes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from utils.core.errors import UserError

Write = Callable[[str, str], Path]


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert message and len(message.splitlines()) == 1, "a user's mistake is told in one line"
    return message
