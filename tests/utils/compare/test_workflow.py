"""One compare.py at a time in a folder; looks train what has no verdict."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from utils.compare import workflow
from utils.compare.analysis.comparison import Comparison
from utils.compare.planning.plan import Plan
from utils.compare.simulation import look_by_look
from utils.compare.statistics import paired
from utils.compare.trials.results import TrialResult
from utils.compare.trials.running import SharedData
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


@pytest.fixture
def look_at(
    untrained: tuple[TrialResult, object], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[list[Plan], list[tuple[str, int]]]]:
    """`look_at(plan, scores)`: what is reported, and (setting, seed) of what is trained."""

    def run(
        plan: Plan, scores: dict[str, Sequence[float]], finished: Sequence[tuple[str, int]] = ()
    ) -> tuple[list[Plan], list[tuple[str, int]]]:
        reported: list[Plan] = []
        trained: list[tuple[str, int]] = []

        def train(part: Plan, data: SharedData, ray: str | None) -> bool:
            new = {(trial.setting, trial.seed) for trial in part.trials} - set(finished)
            trained.extend(new)
            return bool(new)

        def read(plan: Plan) -> tuple[list[TrialResult], dict]:
            results = []
            for trial in plan.trials:
                ap = float(scores[trial.setting][trial.seed])
                results.append(replace(untrained[0], trial=trial, ap=ap))
            return results, {}

        monkeypatch.setattr(workflow, "run_missing", train)
        monkeypatch.setattr(workflow, "_read_trials", read)
        monkeypatch.setattr(workflow, "summarize", lambda comparison: "")
        # it takes most of the time and decides nothing
        monkeypatch.setattr(paired, "_sign_flip", lambda differences: math.nan)
        workflow._run_looks(plan, SharedData(), None, reported.append)
        return reported, trained

    return run


@pytest.mark.parametrize("margin", [None, 1.0])
def test_a_setting_with_a_verdict_is_trained_no_more(
    margin: float | None, scored: Callable[..., Comparison], look_at: Callable, tmp_path: Path
):
    """The command stops what the simulation of the documented tables stops, and no other."""
    looks, rng = (3, 5, 8, 12), np.random.default_rng(4)
    effects = {"none": 0.0, "far": 4.0, "ahead": 1.2, "same": 0.0}
    plan = scored(looks=looks, margin=margin, **dict.fromkeys(effects, [30.0] * 12)).plan
    stopped = set()
    for case in range(4):
        own = replace(plan, out=tmp_path / str(case))
        scores = {name: 30 + ahead + 0.5 * rng.normal(size=12) for name, ahead in effects.items()}
        reported, trained = look_at(own, scores)
        differences = np.array([scores[name] - scores["none"] for name, _ in plan.pairs])
        seeds = look_by_look(differences[None], looks, margin).seeds[0].tolist()
        assert [len(reported[-1].seeds_of(*pair)) for pair in plan.pairs] == seeds
        counts = [sum(name == own for own, _ in trained) for name in effects]
        assert counts == [max(seeds), *seeds] and len(set(trained)) == len(trained)
        assert {(trial.setting, trial.seed) for trial in reported[-1].trials} == set(trained)
        stopped |= set(seeds)
    assert {5, 12} <= stopped


def test_an_interrupted_command_goes_on_at_its_look(
    scored: Callable[..., Comparison], look_at: Callable
):
    ahead = [30.0, 30.3, 29.8, 30.1, 29.9, 30.2]
    scores = {"none": ahead, "far": [each + 4 for each in ahead[::-1]], "same": ahead[::-1]}
    plan = scored(looks=(3, 5, 6), **scores).plan
    reported, trained = look_at(plan, scores)
    assert [len(each.seeds) for each in reported] == [3, 5, 6]
    assert reported[-1].stops == {("far", "none"): 5}
    again, new = look_at(plan, scores, finished=[key for key in trained if key[1] < 4])
    assert sorted(new) == sorted(key for key in trained if key[1] >= 4)
    assert again == reported[1:]
    assert look_at(plan, scores, finished=trained) == (reported[-1:], [])
