"""The plan file: what is compared, how it is judged, with which data and which code.

It is written before the first trial, or when the detections of other programs are read, and never
changed: `record.jsonl` holds its SHA-256. Another plan in the same folder becomes another file,
which says in the report what has changed.
"""

import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from nets import attention
from utils.compare.planning.facts import ForeignFiles
from utils.compare.planning.plan import FIXED_KEYS, TRIALS, Plan, Setting
from utils.compare.planning.record import PlanMark, append_plan, read_record
from utils.compare.statistics import paired
from utils.compare.statistics.halving import SearchResult
from utils.core.code_state import hash_code, read_commit
from utils.core.config import flatten, restore_config, update_config
from utils.core.errors import UserError, shorten
from utils.core.files import hash_content, is_file, read_with, write_file
from utils.core.schema import Config
from utils.core.validation import SavedSection, validate
from utils.core.yaml_text import dump_yaml, load_yaml
from utils.data.content import SplitContent, hash_split
from utils.data.loading import load_dataset
from utils.data.sample import Sample
from utils.engine.datasets import Datasets
from utils.engine.runs import LAST

PLAN_FILE = "plan.yaml"
HEAD = """\
# The plan of a comparison. Do not edit it: record.jsonl in this folder holds the SHA-256 of this
# file. `python compare.py --verify FOLDER` checks both.
"""
SPLITS = ("train", "val", "test")
# Keys of `data` that decide neither which images and labels are read nor in which order
NEUTRAL_KEYS = {"cache", "cache_gb", "gpu_cache_gb", "read_timeout", "download"}


class PlannedSetting(SavedSection):
    """A setting: its folder, its identity in the record, and how it differs from the first one."""

    folder: str
    digest: str
    seed_offset: int = 0
    control_of: str | None = None
    changes: dict[str, Any]


class CodeState(SavedSection):
    """The program.

    Attributes:
        sha256: hash of the project's own source files.
        commit: git's commit, for people; two commits of the same sources are the same program.
        blocks: `package.module:Class` of a user's attention block -> hash of its file.
    """

    sha256: str
    commit: str | None
    blocks: dict[str, str]


class PlanFile(SavedSection):
    """The content of a plan file.

    Attributes:
        comparison: name of the base experiment.
        hypotheses: what is tested, in words.
        level: chance of a false claim, over all hypotheses.
        seeds: seeds of every setting.
        baseline: name of the setting that all others are compared with.
        margin: AP points; smaller differences do not matter.
        looks: number of seeds at each declared look; empty: one look at all seeds.
        settings: name -> setting, in the order of the report.
        data: split -> its content; `train of <setting>` where a setting has another one.
        code: the program.
        search: the search that found the settings.
        foreign: the detections of other programs that are compared.
        configuration: all keys of the first setting.
    """

    comparison: str
    hypotheses: list[str]
    level: float
    seeds: list[int]
    baseline: str
    margin: float | None
    looks: list[int] = Field(default_factory=list)
    settings: dict[str, PlannedSetting]
    data: dict[str, SplitContent]
    code: CodeState
    search: SearchResult | None = None
    foreign: ForeignFiles | None = None
    configuration: dict[str, Any]


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


def load_plan_file(path: Path) -> PlanFile:
    """Read a plan file.

    Raises:
        UserError: it cannot be read, or is not a plan.
    """
    return validate(PlanFile, load_yaml(path), str(path))


def describe_plan(plan: Plan, data: Mapping[str, SplitContent]) -> PlanFile:
    """The content of the plan's file."""
    first = _values(plan.settings[0].config)
    settings = {}
    for setting in plan.settings:
        own = _values(setting.config)
        settings[setting.name] = PlannedSetting(
            folder=setting.folder,
            digest=setting.digest,
            seed_offset=setting.seed_offset,
            control_of=setting.control_of,
            changes={key: value for key, value in own.items() if value != first[key]},
        )
    return PlanFile(
        comparison=plan.config_name,
        hypotheses=_hypotheses(plan),
        level=paired.ALPHA,
        seeds=list(plan.seeds),
        baseline=plan.baseline,
        margin=plan.margin,
        looks=list(plan.looks),
        settings=settings,
        data=dict(data),
        code=_describe_code(plan),
        search=plan.search,
        foreign=ForeignFiles.of(plan.foreign) if plan.foreign else None,
        configuration=plan.settings[0].config.model_dump(mode="json", exclude=set(FIXED_KEYS)),
    )


def restore_plan(content: PlanFile, out: Path) -> Plan:
    """The plan that a file describes.

    Args:
        content: the file.
        out: the folder of the comparison.

    Raises:
        UserError: a key or value of a configuration is not known.
    """
    base = restore_config(content.configuration, str(out / PLAN_FILE))
    settings = []
    for name, saved in content.settings.items():
        config = update_config(base, saved.changes)
        setting = Setting(name, saved.folder, config, saved.seed_offset, saved.control_of)
        settings.append(setting)
    return Plan(
        out=out,
        config_name=content.comparison,
        settings=tuple(settings),
        seeds=tuple(content.seeds),
        baseline=content.baseline,
        margin=content.margin,
        looks=tuple(content.looks),
        search=content.search,
        foreign=content.foreign.restored() if content.foreign else None,
    )


def hash_data(plan: Plan, datasets: Datasets | None = None) -> dict[str, SplitContent]:
    """The content of all splits: of the first setting, and of others that have another one.

    Args:
        plan: the plan.
        datasets: the splits of its first setting, if they have been read.

    Raises:
        UserError: a split cannot be read.
    """
    contents: dict[str, SplitContent] = {}
    first = plan.settings[0].config
    for setting in plan.settings:
        config = setting.config
        is_same = _data_values(config) == _data_values(first)
        if setting is not plan.settings[0] and is_same:
            continue
        for split in SPLITS[: 2 if config.data.test is None else 3]:
            loaded = getattr(datasets, split) if datasets and is_same else None
            samples = loaded.samples if loaded else read_samples(config, split)
            content = hash_split(samples)
            if content != contents.get(split):
                contents[f"{split} of {setting.name}" if split in contents else split] = content
    return contents


def read_samples(config: Config, split: str) -> list[Sample]:
    """The images of a split with their labels."""
    return load_dataset(config.data, split, config.input_size).samples


def _data_values(config: Config) -> str:
    """Everything that decides which images and labels the splits have."""
    data = config.data.model_dump(mode="json", exclude=NEUTRAL_KEYS)
    return json.dumps([data, config.input_size if config.data.format == "shapes" else None])


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


def _hypotheses(plan: Plan) -> list[str]:
    texts = []
    for name, reference in plan.pairs:
        texts.append(f"mean AP over seeds: {name} differs from {reference} (two-sided)")
        if plan.margin is not None:
            texts.append(
                f"mean AP over seeds: {name} is within {plan.margin:g} points of {reference}"
                " (two one-sided tests)"
            )
    return texts


def _describe_code(plan: Plan) -> CodeState:
    blocks = {}
    for name in sorted(set(_user_blocks(plan))):
        file = inspect.getsourcefile(attention.block_info(name).factory)
        if file is not None and is_file(file):
            blocks[name] = read_with(hash_content, file)
    return CodeState(sha256=hash_code(), commit=read_commit(), blocks=blocks)


def _user_blocks(plan: Plan) -> Iterator[str]:
    for setting in plan.settings:
        config = setting.config
        for spec in attention.parse_phi(config.phi, config.attention.at).values():
            if attention.is_user_block(spec):
                yield spec["name"] if isinstance(spec, Mapping) else str(spec)


def _values(config: Config) -> dict[str, Any]:
    return dict(flatten(config.model_dump(mode="json", exclude=set(FIXED_KEYS))))
