import signal
import subprocess
import sys

import pytest

from utils.core import signals
from utils.core.signals import Stopped, deferred

RUN = """
import os, signal, sys, time
from utils.core.cli import run_command
from utils.core.signals import deferred

def main():
    with deferred():
        os.kill(os.getpid(), signal.{name})
        print("finished the step")
    print("not reached")

run_command(main)
"""


@pytest.fixture
def handlers():
    before = {name: signal.getsignal(getattr(signal, name)) for name in signals.NAMES}
    signals.install_handlers()
    yield
    for name, handler in before.items():
        signal.signal(getattr(signal, name), handler)


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("SIGINT", 130, "interrupted"),
        ("SIGTERM", 143, "stopped by SIGTERM"),
        ("SIGHUP", 129, "stopped by SIGHUP"),
    ],
)
def test_a_signal_ends_a_command_after_its_step_with_one_line(name, code, message):
    done = subprocess.run(
        [sys.executable, "-c", RUN.format(name=name)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (
        code,
        "finished the step\n",
        f"{message}\n",
    )


def test_nohup_is_respected():
    script = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + RUN.format(
        name="SIGHUP"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "finished the step\nnot reached\n")


REPLACED = """
import os, signal
from utils.core.cli import run_command

def main():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except KeyboardInterrupt:
        raise KeyboardInterrupt from None

run_command(main)
"""


def test_an_interrupt_that_a_library_raises_instead_is_known_by_its_signal():
    done = subprocess.run(
        [sys.executable, "-c", REPLACED], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "stopped by SIGTERM\n")


def test_a_library_keeps_no_handler_of_its_own(handlers):
    before = signal.getsignal(signal.SIGTERM)
    with signals.handlers_kept():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert signal.getsignal(signal.SIGTERM) == before


def send(*signums, error=None, reached=None):
    """Receive signals in a nested block that puts them off."""
    with deferred():
        with deferred():
            for signum in signums:
                signal.raise_signal(signum)
        if reached is not None:
            reached.append("outer block")
        if error is not None:
            raise error


@pytest.mark.usefixtures("handlers")
def test_blocks_may_be_nested():
    reached = []
    with pytest.raises(Stopped, match="SIGTERM"):
        send(signal.SIGTERM, reached=reached)
    assert reached == ["outer block"]


@pytest.mark.usefixtures("handlers")
def test_a_second_signal_ends_the_block_at_once():
    reached = []
    with pytest.raises(Stopped):
        send(signal.SIGINT, signal.SIGINT, reached=reached)
    assert reached == []
    send()  # nothing is left pending


@pytest.mark.usefixtures("handlers")
def test_an_error_in_the_block_comes_before_the_signal():
    with pytest.raises(ValueError, match="bad"):
        send(signal.SIGTERM, error=ValueError("bad"))
    send()
