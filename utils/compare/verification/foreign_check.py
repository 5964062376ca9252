"""A comparison of foreign detections, computed again from the files of the other programs."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from nets.inference.detections import Detections
from utils.compare.analysis.analyze import analyze
from utils.compare.foreign.coco_truth import Truth, read_truth
from utils.compare.foreign.trials import Contents, given_latency, read_files
from utils.compare.planning.facts import ForeignFiles
from utils.compare.planning.plan import Plan
from utils.compare.reporting.numbers import SavedNumbers
from utils.compare.trials.results import DETECTIONS, read_detections
from utils.compare.verification.differences import Verification
from utils.compare.verification.report_check import check_report
from utils.compare.verification.rescoring import check_trials
from utils.core.errors import UserError
from utils.core.inputs import hash_content, read_with


def check_foreign(
    found: Verification, plan: Plan, files: ForeignFiles, saved: SavedNumbers | None
) -> None:
    """Compare the files of other programs with those of the plan, and compute all numbers again.

    Args:
        found: where differences are noted.
        plan: the plan.
        files: what its file says of them.
        saved: the numbers of the report; None: it is missing.
    """
    lines = [_file_difference(*each) for each in files.sha256.items()]
    changed = [line for line in lines if line]
    found.differences += changed
    found.checked.append(f"files: {len(files.sha256)} files of detections and objects hashed")
    if changed:
        found.differences.append(
            f"{found.out}: nothing was computed again: its files are not those of the plan"
        )
        return
    truth = read_truth(Path(files.truth), files.group)
    plan, contents, missing = read_files(plan, truth)
    splits = dict.fromkeys(files.files, truth)
    outcomes = check_trials(found, plan, splits, saved)
    outcomes = replace(outcomes, failed={**outcomes.failed, **missing})
    if outcomes.is_complete:
        _check_copies(found, plan, truth, contents)
    if saved is not None and outcomes.is_complete:
        analysis = partial(analyze, latency=given_latency(plan), groups=truth.groups)
        check_report(found, saved, analysis, plan, outcomes, splits)


def _file_difference(path: str, sha256: str) -> str:
    """How a file differs from what the plan says; "": not at all."""
    try:
        computed = read_with(hash_content, path)
    except UserError as error:
        return str(error)
    if computed == sha256:
        return ""
    return f"{path}: the plan has SHA-256 {sha256}, computed {computed}"


def _check_copies(found: Verification, plan: Plan, truth: Truth, contents: Contents) -> None:
    """Compare the detections that were stored as trials with those of the files."""
    for trial in plan.trials:
        if (trial.setting, trial.seed) not in contents:
            continue
        stored = read_detections(trial, truth.samples, truth.class_names)
        own = contents[trial.setting, trial.seed].detections
        if not all(map(_are_same, stored, own)):
            found.differences.append(f"{trial.folder / DETECTIONS}: not those of its file")


def _are_same(one: Detections, other: Detections) -> bool:
    return (
        np.array_equal(one.boxes, other.boxes)
        and np.array_equal(one.scores, other.scores)
        and np.array_equal(one.labels, other.labels)
    )
