"""The wait policy of PyTorch's threads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from utils.core.openmp import POLICIES, adapt_to_load

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(("load", "passive"), [(0.0, False), (4.9, False), (5.1, True)])
def test_threads_wait_passively_on_a_busy_machine_only(
    load: float, passive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0), raising=False)
    environment: dict[str, str] = {}
    adapt_to_load(environment)
    assert environment == ({"OMP_WAIT_POLICY": "passive"} if passive else {})
    for name in POLICIES:
        own = {name: "active"}
        adapt_to_load(own)
        assert own == {name: "active"}, "the user's setting is kept"


def test_a_machine_that_does_not_tell_its_load(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> None:
        raise OSError

    environment: dict[str, str] = {}
    monkeypatch.setattr(os, "getloadavg", unknown, raising=False)
    adapt_to_load(environment)
    monkeypatch.delattr(os, "getloadavg")
    adapt_to_load(environment)
    assert not environment


def test_commands_settle_it_before_torch_is_imported() -> None:
    code = (
        "import os, sys\n"
        "os.getloadavg = lambda: (1e6, 0, 0)\n"
        "from utils.core.cli import run_command\n"
        "assert 'torch' not in sys.modules\n"
        "run_command(lambda: print(os.environ['OMP_WAIT_POLICY']))\n"
    )
    environment = {key: value for key, value in os.environ.items() if key not in POLICIES}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.stdout == "passive\n", done.stderr
