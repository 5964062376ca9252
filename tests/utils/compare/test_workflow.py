"""One compare.py at a time in a folder."""

import pytest

from utils.compare import workflow
from utils.compare.plan import Plan
from utils.compare.workflow import compare
from utils.core.errors import UserError


def test_compare_keeps_the_lock_while_it_works(copied: Plan, monkeypatch: pytest.MonkeyPatch):
    refused = []

    def while_it_runs(*args: object) -> None:
        monkeypatch.undo()
        with pytest.raises(UserError, match=r"another compare\.py is working there"):
            compare(copied, [])
        refused.append(True)

    monkeypatch.setattr(workflow, "run_trials", while_it_runs)
    monkeypatch.setattr(workflow, "_report", lambda *args: None)
    compare(copied, [])
    assert refused
