"""The plan file of a comparison: written once, recorded, and told apart from earlier ones.

It is written before the first trial, or when the detections of other programs are read, and never
changed: `record.jsonl` holds its SHA-256. Another plan in the same folder becomes another file,
which says in the report what has changed.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.compare.planning.plan import TRIALS, Plan
from utils.compare.planning.plan_file import (
    PLAN_FILE,
    PlanFile,
    describe_plan,
    hash_data,
    load_plan_file,
)
from utils.compare.planning.record import PlanMark, append_plan, read_record
from utils.core.errors import UserError, shorten
from utils.core.inputs import hash_content, read_with
from utils.core.outputs import write_file
from utils.core.yaml_text import dump_yaml
from utils.engine.datasets import Datasets
from utils.engine.runs import LAST

HEAD = """\
# The plan of a comparison. Do not edit it: record.jsonl in this folder holds the SHA-256 of this
# file. `python compare.py --verify FOLDER` checks both.
"""


@dataclass(frozen=True)
class Registration:
    """The plan file of a report.

    Attributes:
        file: its name.
        sha256: SHA-256 of its content.
        time: when it was written.
        begun: number of trials that had begun then.
        earlier: name of the plan file before it, or "".
        changes: how it differs from that one.
    """

    file: str
    sha256: str
    time: str
    begun: int
    earlier: str = ""
    changes: tuple[str, ...] = ()


def register(plan: Plan, datasets: Datasets | None, is_finished: bool = False) -> Registration:
    """Write the plan's file and record it, unless the folder has one of the same content.

    Args:
        plan: the plan.
        datasets: the splits of its first setting; None: detections of other programs are compared.
        is_finished: whether all trials are; then it does not matter which program this is.

    Raises:
        UserError: a plan file was edited; or trials have begun with other images or labels.
    """
    content = describe_plan(plan, {} if datasets is None else hash_data(plan, datasets))
    marks = _registered(plan.out)
    for mark in marks:
        earlier = read_plan_file(plan.out, mark)
        if is_finished:
            earlier = earlier.model_copy(update={"code": content.code})
        if _identity(earlier) == _identity(content):
            return find_registration(plan.out, mark.file)
    number = len(marks) + 1
    begun = len(list((plan.out / TRIALS).glob(f"*/*/{LAST}")))
    if number > 1 and begun:
        _refuse_other_data(plan, content)
    file = PLAN_FILE if number == 1 else f"plan-{number}.yaml"
    text = HEAD + dump_yaml(content.model_dump(), inline=False, width=100)
    write_file(plan.out / file, text, durable=True)
    mark = PlanMark(file=file, sha256=hashlib.sha256(text.encode()).hexdigest(), begun=begun)
    append_plan(plan.out, plan, mark)
    return find_registration(plan.out, file)


def find_registration(out: Path, file: str) -> Registration:
    """What the record says of a plan file, and how it differs from the one before it.

    Raises:
        UserError: the record does not know it; or a plan file was edited.
    """
    earlier = None
    for entry in read_record(out):
        mark = entry.plan
        if mark is None:
            continue
        if mark.file == file:
            changes: list[str] = []
            if earlier is not None:
                changes = find_changes(read_plan_file(out, earlier), read_plan_file(out, mark))
            before = earlier.file if earlier else ""
            return Registration(file, mark.sha256, entry.time, mark.begun, before, tuple(changes))
        earlier = mark
    raise UserError(f"{out / file}: not a plan of the record; give another --out")


def _registered(out: Path) -> list[PlanMark]:
    return [entry.plan for entry in read_record(out) if entry.plan is not None]


def read_plan_file(out: Path, mark: PlanMark) -> PlanFile:
    """Read a plan file that is as it was written.

    Raises:
        UserError: it is missing, or was edited.
    """
    path = out / mark.file
    found = read_with(hash_content, path)
    if found != mark.sha256:
        raise UserError(
            f"{path}: was edited: its SHA-256 is {found}, and the record has {mark.sha256};"
            " restore it, or give another --out"
        )
    return load_plan_file(path)


def find_changes(old: PlanFile, new: PlanFile) -> list[str]:
    """The keys in which a plan differs from an earlier one; `+` is new there, `-` is not there."""
    before, after = _identity(old), _identity(new)
    found = []
    for key, value in after.items():
        if isinstance(before[key] if value is None else value, dict):
            changed = _changed_keys(before[key] or {}, value or {})
            found += [f"{sign}{key}.{name}" for sign, name in changed]
        elif value != before[key]:
            found.append(f"{key} {shorten(before[key])} -> {shorten(value)}")
    return found


def _changed_keys(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(sign, key) of all keys whose values differ."""
    found = []
    for key in {**before, **after}:
        if key not in after:
            found.append(("-", key))
        elif key not in before:
            found.append(("+", key))
        elif before[key] != after[key]:
            found.append(("", key))
    return found


def _identity(content: PlanFile) -> dict[str, Any]:
    """What makes two plans different; hypotheses are other words for settings and margin."""
    return content.model_dump(exclude={"hypotheses": True, "code": {"commit"}})


def _refuse_other_data(plan: Plan, content: PlanFile) -> None:
    """Trials of one folder must have seen the same images and labels."""
    marks = _registered(plan.out)
    first = max((index for index, mark in enumerate(marks) if not mark.begun), default=0)
    for mark in marks[first:]:  # no trial has seen the data of those before
        earlier = read_plan_file(plan.out, mark)
        for split in content.data.keys() & earlier.data.keys():
            for part in ("pixels", "labels"):
                now, before = content.data[split], earlier.data[split]
                if getattr(now, part) != getattr(before, part):
                    raise UserError(
                        f"{plan.out}: the {part} of split '{split}' have changed since"
                        f" {mark.file} was written; give another --out"
                    )
