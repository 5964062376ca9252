"""The trials of a comparison, scored again from their stored detections."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from utils.compare.planning.facts import Foreign
from utils.compare.planning.plan import Plan, Trial
from utils.compare.reporting.numbers import NUMBERS_FILE, SavedNumbers
from utils.compare.trials.failures import Failure, read_failure
from utils.compare.trials.results import (
    DETECTIONS,
    DONE,
    TestImages,
    TrialMetrics,
    TrialResult,
    fingerprint,
    read_detections,
    read_result,
    scores,
)
from utils.compare.trials.running import read_state
from utils.compare.verification.differences import Verification
from utils.core.errors import UserError
from utils.core.inputs import hash_content, read_with
from utils.core.validation import read_json
from utils.engine.experiment import METRICS
from utils.metrics import evaluate


@dataclass(frozen=True)
class Outcomes:
    """What became of the trials of a plan.

    Attributes:
        results: of those that finished.
        failed: (setting, seed) -> why it has no result.
        is_complete: whether every result of the report is among them.
    """

    results: list[TrialResult]
    failed: dict[tuple[str, int], Failure]
    is_complete: bool = True

    def of(self, plan: Plan) -> "Outcomes":
        """Those of a plan that has fewer trials."""
        keys = {(trial.setting, trial.seed) for trial in plan.trials}
        results = [each for each in self.results if (each.trial.setting, each.trial.seed) in keys]
        failed = {key: failure for key, failure in self.failed.items() if key in keys}
        return Outcomes(results, failed, self.is_complete)


def check_trials(
    found: Verification,
    plan: Plan,
    splits: Mapping[str, TestImages],
    saved: SavedNumbers | None,
) -> Outcomes:
    """Score all trials again; not complete if one of them cannot be."""
    reported = [] if saved is None else saved.trials
    owners = dict(_detection_owners(plan))
    results, failed, is_complete = [], {}, True
    has_run = plan.foreign is None
    for trial in plan.trials:
        try:
            state = _foreign_state(trial, plan.foreign) if plan.foreign else read_state(trial)
            if state == "finished":
                split = splits[trial.setting]
                results.append(_score_again(found, trial, split, owners, has_run))
            elif state == "failed":
                failed[trial.setting, trial.seed] = read_failure(trial.folder)
            elif str(trial) in reported:
                raise UserError(f"{trial.folder}: missing, but {NUMBERS_FILE} has its result")
        except UserError as error:
            found.differences.append(str(error))
            is_complete = False
    found.checked.append(f"trials: {len(results)} of {len(plan.trials)} scored again")
    if not (is_complete and results):
        found.differences.append(
            f"{found.out}: the report was not computed again: trials are missing"
        )
    return Outcomes(results, failed, is_complete and bool(results))


def _foreign_state(trial: Trial, foreign: Foreign) -> str:
    return "finished" if trial.seed in foreign.files[trial.setting] else "new"


def _detection_owners(plan: Plan) -> Iterator[tuple[str, Trial]]:
    """SHA-256 of detections, as noted when they were written -> the trial that wrote them."""
    for trial in plan.trials:
        with suppress(UserError):  # named where the trial is scored
            yield read_result(trial).detections, trial


def _score_again(
    found: Verification, trial: Trial, split: TestImages, owners: Mapping[str, Trial], has_run: bool
) -> TrialResult:
    """The result with scores that follow from the detections.

    Args:
        found: where differences are noted.
        trial: the trial.
        split: its test images.
        owners: SHA-256 of detections -> the trial that wrote them.
        has_run: whether it was trained here, so that its folder is a run's.

    Raises:
        UserError: its detections are missing or damaged.
    """
    result = read_result(trial, has_curve=has_run)
    path = trial.folder / DETECTIONS
    content = read_with(hash_content, path)
    if result.detections not in ("", content):
        owner = owners.get(content)
        whose = f"those of {owner}" if owner else "not those that the trial wrote"
        found.differences.append(f"{path}: exchanged: they are {whose}")
    detections = read_detections(trial, split.samples, split.class_names)
    metrics = evaluate(split.samples, detections, split.class_names).to_json()
    for name in (DONE, METRICS) if has_run else (DONE,):
        file = str((trial.folder / name).relative_to(found.out))
        saved = read_json(dict[str, Any], trial.folder / name)
        section = saved.get("metrics" if name == DONE else "test", saved)
        stored = section if isinstance(section, dict) else {}
        found.compare(file, {key: stored.get(key) for key in metrics}, metrics)
        found.checked.pop()
    # what a network costs does not follow from detections
    computed = scores(TrialMetrics.model_validate({**metrics, "params": None, "gflops": None}))
    return replace(result, **computed, truth=fingerprint(split.samples))
