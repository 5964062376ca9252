"""`compare.py --verify DIR`: every number of a report, computed again from the stored detections.

What may be the cause is told apart: an edited plan or record, other images or labels, missing or
exchanged detections. Latency, training time, parameters, GFLOPs and learning curves do not follow
from detections; they are taken from the trials, and the report must agree with them.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from utils.compare.analysis.analyze import analyze
from utils.compare.planning.plan import Plan
from utils.compare.planning.plan_file import PlanFile, hash_data, load_plan_file, restore_plan
from utils.compare.planning.record import (
    RECORD,
    PlanMark,
    find_edited_line,
    read_lines,
    read_record,
)
from utils.compare.reporting.numbers import NUMBERS_FILE, SavedNumbers, hash_lines
from utils.compare.verification.differences import NOTHING, Verification
from utils.compare.verification.foreign_check import check_foreign
from utils.compare.verification.report_check import check_report, measured_latency
from utils.compare.verification.rescoring import check_trials
from utils.core.code_state import hash_code
from utils.core.config import update_config
from utils.core.errors import UserError
from utils.core.inputs import hash_content, is_file, read_with
from utils.core.validation import read_json
from utils.data.dataset import DetectionDataset
from utils.data.loading import load_dataset


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
    if content.foreign is not None:
        if changes:
            raise UserError(f"--verify {out}: compares files of other programs, which have no keys")
        check_foreign(found, plan, content.foreign, saved)
        return found
    has_same_labels = _check_data(found, _with_data(plan, changes), content)
    _check_code(found, content)
    if not has_same_labels:
        found.differences.append(
            f"{out}: scores were not computed again: the labels are not those of the plan"
        )
        return found
    splits = _open_splits(plan, changes)
    outcomes = check_trials(found, plan, splits, saved)
    if saved is not None and outcomes.is_complete:
        analysis = partial(analyze, latency=measured_latency(found, splits))
        check_report(found, saved, analysis, plan, outcomes, splits)
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
