"""Clocks in another process: answers, errors, ends."""

import os
import time

import pytest
import remote_clocks

from utils.benchmark.remote import Remote
from utils.core.errors import UserError


def test_a_clock_answers_from_another_process():
    remote = Remote(remote_clocks.make, 21.0)
    assert remote.names == ["double", "process", "fail", "die"]
    assert remote.clock("double")() == 42.0 and remote.clock("double")() == 42.0
    child = int(remote.clock("process")())
    assert child != os.getpid()
    remote.close()
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


@pytest.mark.parametrize(
    ("name", "message"),
    [("fail", "remote_clocks.make: ValueError: no such thing$"), ("die", "its process ended")],
)
def test_what_goes_wrong_there_is_one_line_here(name: str, message: str):
    remote = Remote(remote_clocks.make, 1.0)
    with pytest.raises(UserError, match=message):
        remote.clock(name)()
    remote.close()


def test_what_cannot_be_made_tells_why(capfd: pytest.CaptureFixture):
    with pytest.raises(UserError, match=r"remote_clocks.refuse: backend=x: not here"):
        Remote(remote_clocks.refuse)
    assert "not shown" not in capfd.readouterr().out


def test_it_is_not_waited_for_longer_than_asked():
    start = time.monotonic()
    with pytest.raises(UserError, match=r"took over 0\.1 s"):
        Remote(remote_clocks.hang, timeout=0.1)
    assert time.monotonic() - start < 30
