"""`compare.py --verify DIR`: every number of a report, computed again from the stored detections.

What may be the cause is told apart: an edited plan or record, other images or labels, missing or
exchanged detections. Latency, training time, parameters, GFLOPs and learning curves do not follow
from detections; they are taken from the trials, and the report must agree with them.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from difflib import SequenceMatcher
from itertools import zip_longest
from pathlib import Path
from typing import Any

from utils.compare.analysis import analyze
from utils.compare.planning.plan import Plan, Trial
from utils.compare.planning.record import (
    RECORD,
    Entry,
    PlanMark,
    find_edited_line,
    read_lines,
    read_record,
)
from utils.compare.planning.registration import (
    PlanFile,
    find_registration,
    hash_data,
    load_plan_file,
    restore_plan,
)
from utils.compare.reporting import figures
from utils.compare.reporting.numbers import NUMBERS_FILE, SavedNumbers, hash_lines, report_numbers
from utils.compare.reporting.report import report_texts
from utils.compare.statistics.paired import NO_INTERVAL
from utils.compare.trials.failures import Failure, read_failure
from utils.compare.trials.latency import Latency, read_latency
from utils.compare.trials.results import (
    DETECTIONS,
    DONE,
    TrialMetrics,
    TrialResult,
    fingerprint,
    read_detections,
    read_result,
    scores,
)
from utils.compare.trials.trials import read_state
from utils.compare.workflow import find_stops
from utils.core.code_state import hash_code
from utils.core.config import update_config
from utils.core.errors import UserError, shorten
from utils.core.files import hash_content, is_file, read_file, read_with
from utils.core.validation import read_json
from utils.data.dataset import DetectionDataset
from utils.data.loading import load_dataset
from utils.engine.experiment import METRICS
from utils.metrics import evaluate

RELATIVE, ABSOLUTE = 1e-6, 1e-9  # numbers that differ by less are the same on two machines
IMAGE = re.compile(r'"data:image/[^"]*"')  # inside report.html
NOTHING = "nothing"


class Verification:
    """What was checked, and what differs.

    Attributes:
        checked: what was compared, one line each.
        differences: one line each.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.checked: list[str] = []
        self.differences: list[str] = []

    def compare(self, file: str, stored: Any, computed: Any) -> None:
        """Compare nested values key by key."""
        before, after = dict(_flatten(stored)), dict(_flatten(computed))
        for key in {**before, **after}:
            one, other = before.get(key, NOTHING), after.get(key, NOTHING)
            if not _is_same(one, other):
                self.differ(file, key, one, other)
        self.checked.append(f"{file}: {len(after)} values computed again")

    def differ(self, file: str, key: str, stored: Any, computed: Any) -> None:
        """Note a difference."""
        self.differences.append(
            f"{self.out / file}: {key}: stored {shorten(stored)}, computed {shorten(computed)}"
        )

    def lines(self) -> list[str]:
        """What the command prints."""
        count = len(self.differences)
        verdict = f"{count} differences" if count > 1 else "one difference"
        return [*self.checked, *self.differences, verdict if count else "nothing differs"]


def verify(out: Path, changes: Mapping[str, Any]) -> Verification:
    """Compute the numbers of a report again, and compare plan, record, data and code.

    Args:
        out: folder of the comparison; only read.
        changes: keys of `data` with other values, such as where its folder is now.

    Raises:
        UserError: there is no plan, or the data cannot be read.
    """
    for key in changes:
        if not key.startswith("data."):
            raise UserError(f"--verify with {key}=...: only keys of data can be changed")
    found = Verification(out)
    saved = _check_record(found)
    content = _check_plan(found, saved)
    if content is None:
        return found
    plan = restore_plan(content, out)
    has_same_labels = _check_data(found, _with_data(plan, changes), content)
    _check_code(found, content)
    if not has_same_labels:
        found.differences.append(
            f"{out}: scores were not computed again: the labels are not those of the plan"
        )
        return found
    splits = _open_splits(plan, changes)
    results, failed = _check_trials(found, plan, splits, saved)
    if saved is not None and results is not None:
        _check_report(found, plan, saved, results, failed, splits)
    return found


def _check_record(found: Verification) -> SavedNumbers | None:
    """Check the record, also against `report.json`, which is returned."""
    lines = read_lines(found.out)
    edited = find_edited_line(lines)
    if edited is not None:
        found.differences.append(
            f"{found.out / RECORD}:{edited}: edited, or lines before it were removed or added"
        )
    found.checked.append(f"{RECORD}: {len(lines)} lines, each with the hash of all before it")
    if not is_file(found.out / NUMBERS_FILE):
        found.differences.append(f"{found.out / NUMBERS_FILE}: missing")
        return None
    saved = read_json(SavedNumbers, found.out / NUMBERS_FILE)
    count = saved.origin.record_lines
    if hash_lines(lines[:count]) != saved.origin.record_sha256:
        found.differences.append(
            f"{found.out / RECORD}: its first {count} lines are not those that {NUMBERS_FILE} was"
            " made with"
        )
    if len(lines) > count:
        found.checked.append(f"{RECORD}: {len(lines) - count} lines are later than the report")
    return saved


def _check_plan(found: Verification, saved: SavedNumbers | None) -> PlanFile | None:
    """The plan that the report is about, if it is as it was written."""
    entries = [entry for entry in read_record(found.out) if entry.plan is not None]
    marks = [entry.plan for entry in entries if entry.plan is not None]
    if not marks:
        raise UserError(
            f"{found.out}: its record names no plan file: expected a folder of compare.py, as of"
            " the version that writes plan.yaml"
        )
    count = len(found.differences)
    for mark in marks:
        _check_plan_file(found, mark)
    if len(found.differences) > count:
        found.differences.append(
            f"{found.out}: nothing was computed again, as a plan is not as written"
        )
        return None
    name = marks[-1].file if saved is None else saved.origin.plan
    by_name = {mark.file: mark for mark in marks}
    if name not in by_name:
        found.differ(NUMBERS_FILE, "origin.plan", name, ", ".join(by_name))
        return None
    if saved is not None and saved.origin.plan_sha256 != by_name[name].sha256:
        found.differ(
            NUMBERS_FILE, "origin.plan_sha256", saved.origin.plan_sha256, by_name[name].sha256
        )
    return load_plan_file(found.out / name)


def _check_plan_file(found: Verification, mark: PlanMark) -> None:
    if not is_file(found.out / mark.file):
        found.differences.append(f"{found.out / mark.file}: missing")
        return
    computed = read_with(hash_content, found.out / mark.file)
    if computed != mark.sha256:
        found.differences.append(
            f"{found.out / mark.file}: edited: the record has SHA-256 {mark.sha256}, computed"
            f" {computed}"
        )
    when = f"after {mark.begun} trials had begun" if mark.begun else "before the first trial"
    found.checked.append(f"{mark.file}: SHA-256 {mark.sha256}, written {when}")


def _check_data(found: Verification, plan: Plan, content: PlanFile) -> bool:
    """Compare images and labels with those of the plan; whether the labels are the same."""
    now = hash_data(plan)
    name = "data"
    for split in {**content.data, **now}:
        before, after = content.data.get(split), now.get(split)
        for part in ("images", "objects", "pixels", "labels"):
            one, other = getattr(before, part, NOTHING), getattr(after, part, NOTHING)
            if one != other:
                found.differences.append(
                    f"{name}, split {split}: {part}: planned {one}, found {other}"
                )
        if after is not None:
            found.checked.append(
                f"{name}, split {split}: pixels and labels of {after.images} images hashed"
            )
    return all(
        split in now and now[split].labels == each.labels for split, each in content.data.items()
    )


def _check_code(found: Verification, content: PlanFile) -> None:
    """Say whether this is the program of the plan; another version may compute numbers again."""
    is_same = hash_code() == content.code.sha256
    commit = f" (commit {content.code.commit})" if content.code.commit else ""
    found.checked.append(
        f"code: as planned{commit}"
        if is_same
        else f"code: not the version of the plan{commit}; computed again with this one"
    )


def _with_data(plan: Plan, changes: Mapping[str, Any]) -> Plan:
    settings = [
        replace(setting, config=update_config(setting.config, changes)) for setting in plan.settings
    ]
    return replace(plan, settings=tuple(settings))


def _open_splits(plan: Plan, changes: Mapping[str, Any]) -> dict[str, DetectionDataset]:
    """Setting -> the images that it is scored on; none of them is decoded."""
    splits: dict[str, DetectionDataset] = {}
    opened: dict[str, DetectionDataset] = {}
    for setting in plan.settings:
        config = update_config(setting.config, changes)
        name = "val" if config.data.test is None else "test"
        key = f"{config.data.model_dump_json()} {config.input_size}"
        if key not in opened:
            opened[key] = load_dataset(config.data, name, config.input_size)
        splits[setting.name] = opened[key]
    return splits


Outcomes = tuple[list[TrialResult] | None, dict[tuple[str, int], Failure]]


def _check_trials(
    found: Verification,
    plan: Plan,
    splits: Mapping[str, DetectionDataset],
    saved: SavedNumbers | None,
) -> Outcomes:
    """Score all trials again; no results if one of them cannot be."""
    reported = [] if saved is None else saved.trials
    owners = dict(_detection_owners(plan))
    results, failed, is_complete = [], {}, True
    for trial in plan.trials:
        try:
            state = read_state(trial)
            if state == "finished":
                results.append(_score_again(found, trial, splits[trial.setting], owners))
            elif state == "failed":
                failed[trial.setting, trial.seed] = read_failure(trial.folder)
            elif str(trial) in reported:
                raise UserError(f"{trial.folder}: missing, but {NUMBERS_FILE} has its result")
        except UserError as error:
            found.differences.append(str(error))
            is_complete = False
    found.checked.append(f"trials: {len(results)} of {len(plan.trials)} scored again")
    if is_complete and results:
        return results, failed
    found.differences.append(f"{found.out}: the report was not computed again: trials are missing")
    return None, failed


def _detection_owners(plan: Plan) -> Iterator[tuple[str, Trial]]:
    """SHA-256 of detections, as noted when they were written -> the trial that wrote them."""
    for trial in plan.trials:
        with suppress(UserError):  # named where the trial is scored
            yield read_result(trial).detections, trial


def _score_again(
    found: Verification, trial: Trial, split: DetectionDataset, owners: Mapping[str, Trial]
) -> TrialResult:
    """The result with scores that follow from the detections.

    Raises:
        UserError: its detections are missing or damaged.
    """
    result = read_result(trial)
    path = trial.folder / DETECTIONS
    computed = read_with(hash_content, path)
    if result.detections not in ("", computed):
        owner = owners.get(computed)
        whose = f"those of {owner}" if owner else "not those that the trial wrote"
        found.differences.append(f"{path}: exchanged: they are {whose}")
    detections = read_detections(trial, split.samples, split.class_names)
    metrics = evaluate(split.samples, detections, split.class_names).to_json()
    for name in (DONE, METRICS):
        file = str((trial.folder / name).relative_to(found.out))
        saved = read_json(dict[str, Any], trial.folder / name)
        section = saved.get("metrics" if name == DONE else "test", saved)
        stored = section if isinstance(section, dict) else {}
        found.compare(file, {key: stored.get(key) for key in metrics}, metrics)
        found.checked.pop()
    cost = {"params": result.params, "gflops": result.gflops}
    computed_scores = scores(TrialMetrics.model_validate({**metrics, **cost}))
    return replace(result, **computed_scores, truth=fingerprint(split.samples))


def _check_report(
    found: Verification,
    plan: Plan,
    saved: SavedNumbers,
    results: list[TrialResult],
    failed: dict[tuple[str, int], Failure],
    splits: Mapping[str, DetectionDataset],
) -> None:
    """Compute all numbers of the report again, and write all its texts again."""
    history = read_record(found.out)[: saved.origin.record_lines]
    if plan.looks:
        plan = _at_look(plan, saved.numbers.get("seeds"), results, failed, history)
        results, failed = _of_plan(plan, results, failed)
    used = {result.trial.setting: splits[result.trial.setting] for result in results}
    comparison = analyze(plan, results, failed, _latency(found, used), used, history)
    registration = find_registration(found.out, saved.origin.plan)
    comparison = replace(comparison, registration=registration)
    found.compare(NUMBERS_FILE, saved.numbers, report_numbers(comparison))
    plots = {name: {"png": b""} for name in figures.names(comparison)}
    texts = report_texts(comparison, saved.origin.command, saved.origin.language, plots)
    for name, text in texts.items():
        _check_text(found, name, text)


def _at_look(
    plan: Plan,
    seeds: Any,
    results: list[TrialResult],
    failed: dict[tuple[str, int], Failure],
    history: Sequence[Entry],
) -> Plan:
    """The plan as the report of a declared look shows it: some seeds, and what has stopped."""
    for count in plan.looks:
        look = replace(plan, seeds=plan.seeds[:count], stops=plan.stops)
        plan = replace(plan, stops=find_stops(look, *_of_plan(look, results, failed), history))
        if list(look.seeds) == seeds:
            break
    return replace(look, stops=plan.stops)


def _of_plan(
    plan: Plan, results: list[TrialResult], failed: dict[tuple[str, int], Failure]
) -> tuple[list[TrialResult], dict[tuple[str, int], Failure]]:
    """The results and failures of a plan's own trials."""
    keys = {(trial.setting, trial.seed) for trial in plan.trials}
    own = [each for each in results if (each.trial.setting, each.trial.seed) in keys]
    return own, {key: failure for key, failure in failed.items() if key in keys}


def _latency(found: Verification, settings: Mapping[str, Any]) -> dict[str, Latency]:
    """The measurement, which cannot be repeated."""
    unknown = dict.fromkeys(settings, Latency(math.nan, NO_INTERVAL))
    try:
        return {**unknown, **read_latency(found.out)}
    except UserError as error:
        found.differences.append(str(error))
        return unknown


def _check_text(found: Verification, name: str, text: str) -> None:
    if not is_file(found.out / name):
        found.differences.append(f"{found.out / name}: missing")
        return
    stored = read_file(found.out / name).decode("utf-8", "replace")
    before, after = (IMAGE.sub('""', each).splitlines() for each in (stored, text))
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    for kind, start, end, first, last in matcher.get_opcodes():
        pairs = zip_longest(before[start:end], after[first:last], fillvalue=NOTHING)
        for number, lines in enumerate(pairs if kind != "equal" else (), start=start + 1):
            found.differ(name, f"line {number}", *_around_difference(*lines))
    found.checked.append(f"{name}: {len(after)} lines written again")


def _around_difference(one: str, other: str) -> tuple[str, str]:
    """Both lines from shortly before the first letter that differs."""
    same = 0
    while one[same : same + 1] == other[same : same + 1] != "":
        same += 1
    start = max(0, same - 20)
    return one[start : start + 60], other[start : start + 60]


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of nested mappings and lists."""
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping):
        yield prefix.removesuffix("."), value
        return
    for key, inner in value.items():
        yield from _flatten(inner, f"{prefix}{key}.")


def _is_same(one: Any, other: Any) -> bool:
    if type(one) in (int, float) and type(other) in (int, float):
        return math.isclose(one, other, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return one == other
