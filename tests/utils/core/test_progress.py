"""Times as people say them."""

import pytest

from utils.core.progress import duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(40, "40 s"), (720, "12 min"), (12000, "3 h 20 min"), (7300, "2 h 02 min")],
)
def test_durations(seconds: float, text: str):
    assert duration(seconds) == text
