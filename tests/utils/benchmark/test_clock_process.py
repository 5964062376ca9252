"""Clocks in another process: answers, errors, ends."""

import os

import clock_functions
import pytest

from utils.benchmark.clock_process import ClockProcess, call_with_user_errors
from utils.core.errors import UserError


def test_clocks_answer_from_another_process_until_it_dies(capfd: pytest.CaptureFixture):
    process = ClockProcess(clock_functions.make, 21.0)
    assert process.clock("double")() == process.clock("double")() == 42.0
    assert process.clock("process")() != os.getpid()
    with pytest.raises(UserError, match=r"clock_functions.make: its process ended"):
        process.clock("die")()
    process.close()
    assert "not shown" not in capfd.readouterr().out


def test_a_process_that_hangs_is_killed():
    with pytest.raises(UserError, match=r"clock_functions.hang: took over 0\.1 s"):
        ClockProcess(clock_functions.hang, timeout=0.1)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("no such thing\nsecond line"), "ValueError: no such thing"),
        (UserError("backend=x: not here"), "backend=x: not here"),
    ],
)
def test_errors_become_one_line(error: Exception, message: str):
    def fail() -> None:
        raise error

    with pytest.raises(UserError) as raised:
        call_with_user_errors(fail)
    assert str(raised.value) == message
