"""The content of a plan file: what is compared and judged, with which data and which code."""

import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from nets import attention
from utils.compare.planning.facts import ForeignFiles
from utils.compare.planning.plan import FIXED_KEYS, Plan, Setting, comparable_values
from utils.compare.statistics import paired
from utils.compare.statistics.halving import SearchResult
from utils.core.code_state import hash_code, read_commit
from utils.core.config import restore_config, update_config
from utils.core.inputs import hash_content, is_file, read_with
from utils.core.schema import Config
from utils.core.validation import SavedSection, validate
from utils.core.yaml_text import load_yaml
from utils.data.content import SplitContent, hash_split
from utils.data.loading import load_dataset
from utils.data.sample import Sample
from utils.engine.datasets import Datasets

PLAN_FILE = "plan.yaml"
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


def load_plan_file(path: Path) -> PlanFile:
    """Read a plan file.

    Raises:
        UserError: it cannot be read, or is not a plan.
    """
    return validate(PlanFile, load_yaml(path), str(path))


def describe_plan(plan: Plan, data: Mapping[str, SplitContent]) -> PlanFile:
    """The content of the plan's file."""
    first = comparable_values(plan.settings[0].config)
    settings = {}
    for setting in plan.settings:
        own = comparable_values(setting.config)
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
