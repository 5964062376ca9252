"""The plan of a comparison: settings, seeds, and the folder of every trial."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nets import attention
from utils.compare.planning.facts import Foreign
from utils.compare.statistics.halving import SearchResult
from utils.compare.statistics.paired import MAX_SEEDS, MIN_SEEDS
from utils.core.config import (
    find_config,
    flatten,
    load_config,
    parse_overrides,
    read_yaml,
    update_config,
)
from utils.core.errors import UserError, nearest, shorten
from utils.core.schema import MAX_NAME, Config
from utils.core.yaml_text import parse_yaml
from utils.engine.experiment import check_config

DEFAULT_PHI = ("none", "se", "cbam", "eca")
DEFAULT_SEEDS = (0, 1, 2, 3, 4, 5)
MAX_LOOKS = 20
TRIALS = "trials"  # folder of the trials, below the comparison's
FIXED_KEYS = ("name", "output")  # the comparison itself sets them
# All settings are measured on the same images, but these keys of `data` may still differ.
FREE_DATA_KEYS = {"train", "cache", "cache_gb", "gpu_cache_gb", "download", "shapes_train"}

# A seed gives settings that differ in one of these other batches, or they are scored otherwise.
PAIRED_KEYS = (
    "eval.",
    "augment.",
    "data.train",
    "data.shapes_train",
    "input_size",
    "seed",
    "train.batch_size",
    "train.accumulate",
    "train.multi_scale",
    "train.epochs",
)


@dataclass(frozen=True)
class Setting:
    """A setting that is compared with others.

    Attributes:
        name: as shown in the report.
        folder: the name as a folder name.
        config: the configuration, with the base experiment's seed.
        seed_offset: added to every seed, so that a setting can be compared with itself.
        control_of: name of the setting for which this one is the fair control.
    """

    name: str
    folder: str
    config: Config
    seed_offset: int = 0
    control_of: str | None = None

    @property
    def digest(self) -> str:
        """Tells settings of one name apart. Keys that later versions add do not change it."""
        values = self.config.model_dump(mode="json", exclude=set(FIXED_KEYS), exclude_defaults=True)
        text = json.dumps([values, self.seed_offset], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Trial:
    """One training of a setting with a seed.

    Attributes:
        setting: the setting's name.
        seed: one of the comparison's seeds.
        folder: run folder.
        config: complete configuration, with the seed of the training.
    """

    setting: str
    seed: int
    folder: Path
    config: Config

    def __str__(self) -> str:
        return f"{self.setting}, seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """A comparison as requested.

    Attributes:
        out: folder of the comparison.
        config_name: name of the base experiment.
        settings: the settings, in the order of the report.
        seeds: seeds of every setting.
        baseline: name of the setting that all others are compared with.
        margin: AP points; smaller differences do not matter. None: not declared.
        search: the search that found the settings.
        looks: number of seeds at each declared look, ascending; empty: one look at all seeds.
            At a look, `seeds` are those up to it.
        stops: (setting, reference) -> number of seeds after which a look gave a verdict.
        foreign: the detections that are compared, if they are not those of own trainings.
    """

    out: Path
    config_name: str
    settings: tuple[Setting, ...]
    seeds: tuple[int, ...]
    baseline: str
    margin: float | None = None
    search: SearchResult | None = None
    looks: tuple[int, ...] = ()
    stops: Mapping[tuple[str, str], int] = field(default_factory=dict)
    foreign: Foreign | None = None

    @property
    def trials(self) -> list[Trial]:
        """All trials, seed by seed, so that an unfinished comparison covers every setting."""
        counts = [(setting, len(self.seeds_of(setting.name))) for setting in self.settings]
        trials = []
        for index, seed in enumerate(self.seeds):
            trials += [self._trial(setting, seed) for setting, count in counts if index < count]
        return trials

    @property
    def most_trials(self) -> int:
        """Number of trials if no look gives a verdict."""
        return len(self.settings) * (self.looks[-1] if self.looks else len(self.seeds))

    @property
    def look_number(self) -> int:
        """Which of the declared looks this is, from 1."""
        return self.looks.index(len(self.seeds)) + 1

    def seeds_of(self, *names: str) -> tuple[int, ...]:
        """The seeds that a setting is trained with, or that two settings are compared on.

        A setting is trained as long as one of its comparisons has no verdict.
        """
        most = len(self.seeds)
        counts = [self.stops.get(pair, most) for pair in self.pairs if {*names} <= {*pair}]
        return self.seeds[: max(counts, default=most)]

    @property
    def chooses_epoch(self) -> bool:
        """Whether the scored epoch is chosen, on another split than the test images."""
        return any(setting.config.train.select == "best" for setting in self.settings)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(setting, reference): all others with the baseline, settings with their own control."""
        others = [setting for setting in self.settings if setting.name != self.baseline]
        pairs = [(setting.name, self.baseline) for setting in others]
        for setting in others:
            if setting.control_of:
                pairs.append((setting.control_of, setting.name))
        return pairs

    def unpaired_keys(self, setting: Setting) -> list[str]:
        """Keys by which a setting gets other batches than the baseline, or is scored otherwise."""
        (baseline,) = [each for each in self.settings if each.name == self.baseline]
        own, other = _values(setting), _values(baseline)
        return [key for key in own if key.startswith(PAIRED_KEYS) and own[key] != other[key]]

    def _trial(self, setting: Setting, seed: int) -> Trial:
        parent = self.out / TRIALS / setting.folder
        name = f"seed-{seed}"
        changes = {"seed": seed + setting.seed_offset, "name": name, "output": str(parent)}
        config = setting.config.model_copy(update=changes)
        return Trial(setting.name, seed, parent / name, config)


def _values(setting: Setting) -> dict[str, Any]:
    values = dict(flatten(setting.config.model_dump(mode="json")))
    return {**values, "seed": setting.seed_offset}


def make_plan(
    config: str,
    phi: Sequence[str] = (),
    settings_file: str | None = None,
    seeds: Sequence[str | int] | None = None,
    out: str | None = None,
    baseline: str | None = None,
    overrides: Sequence[str] = (),
    margin: float | None = None,
    looks: Sequence[str | int] = (),
) -> Plan:
    """Read and check all parts of a comparison before any training.

    Args:
        config: the base experiment.
        phi: attention settings, as on the command line. Without `phi` and `settings_file`:
            `none se cbam eca`.
        settings_file: YAML file, name -> overrides.
        seeds: different integers; None: 0 to 5, or as many as the last look needs.
        out: folder; None: `runs/compare-<config>`.
        baseline: name of a setting; None: `none` if there is one, else the first.
        overrides: `KEY=VALUE` words for all settings.
        margin: differences of fewer AP points do not matter; None: not declared.
        looks: numbers of seeds, ascending, at which a verdict may stop a setting.

    Raises:
        UserError: a setting cannot be trained, or the settings cannot be compared.
    """
    changes = parse_overrides(overrides)
    if "seed" in changes:
        raise UserError("seed=...: a comparison takes its seeds from --seeds")
    base = load_config(config, changes)
    overrides_by_name = _read_phi(phi if phi or settings_file else DEFAULT_PHI)
    if settings_file:
        overrides_by_name.update(_read_settings(settings_file))
    settings = _make_settings(base, overrides_by_name)
    if len(settings) < 2:
        raise UserError("a comparison needs at least two settings: --phi none se")
    _refuse_other_images(settings)
    config_name = find_config(config).stem
    checked_looks = _check_looks(looks)
    plan = Plan(
        out=Path(out or f"runs/compare-{config_name}"),
        config_name=config_name,
        settings=settings,
        seeds=check_seeds(seeds, checked_looks),
        baseline=find_baseline(baseline, settings),
        margin=check_margin(margin),
        looks=checked_looks,
    )
    _check_trial_seeds(settings, plan.seeds)
    for setting in settings:
        check_config(setting.config)
    return plan


def check_margin(margin: float | None) -> float | None:
    """Return a margin in points.

    Raises:
        UserError: it is none.
    """
    if margin is not None and not 0 < margin < 100:
        raise UserError(f"--margin: expected AP points above 0 and below 100, got {margin:g}")
    return margin


def _check_looks(looks: Sequence[str | int]) -> tuple[int, ...]:
    numbers = _read_integers("--looks", looks)
    ascending = tuple(sorted(set(numbers)))
    in_range = all(MIN_SEEDS <= number <= MAX_SEEDS for number in numbers)
    if numbers != ascending or not in_range or len(numbers) > MAX_LOOKS:
        raise UserError(
            f"--looks: expected at most {MAX_LOOKS} ascending numbers of seeds, {MIN_SEEDS} to "
            f"{MAX_SEEDS}, got {_shown(looks)}"
        )
    return numbers


def check_seeds(seeds: Sequence[str | int] | None, looks: Sequence[int] = ()) -> tuple[int, ...]:
    """Return seeds as numbers; by default 0 to 5, or as many as the last look needs.

    Raises:
        UserError: they are not different integers, or not enough.
    """
    if seeds is None:
        return tuple(range(looks[-1])) if looks else DEFAULT_SEEDS
    numbers = _read_integers("--seeds", seeds)
    if not numbers or len(set(numbers)) < len(numbers):
        raise UserError(f"--seeds: expected different integers, got {_shown(seeds)}")
    if looks and len(numbers) != looks[-1]:
        raise UserError(f"--seeds: the last of --looks needs {looks[-1]} seeds, got {len(numbers)}")
    return numbers


def _read_integers(option: str, words: Sequence[str | int]) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in words)
    except ValueError:
        raise UserError(f"{option}: expected integers, got {_shown(words)}") from None


def _shown(words: Sequence[str | int]) -> str:
    return shorten(" ".join(map(str, words)) or "none")


def _check_trial_seeds(settings: Sequence[Setting], seeds: Sequence[int]) -> None:
    for setting in settings:
        for seed in seeds:
            try:
                update_config(setting.config, {"seed": seed + setting.seed_offset})
            except UserError as error:
                raise UserError(f"--seeds {seed}, setting '{setting.name}': {error}") from None


def find_baseline(name: str | None, settings: Sequence[Setting]) -> str:
    """Return the name of the baseline: the given one, else `none`, else the first.

    Raises:
        UserError: there is no such setting.
    """
    names = [setting.name for setting in settings]
    if name is None:
        return "none" if "none" in names else names[0]
    if name not in names:
        raise UserError(f"--baseline {name}: no such setting{nearest(name, names)}")
    return name


def _read_phi(phi: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Settings that differ in attention only; one given twice is compared with itself."""
    overrides_by_name: dict[str, dict[str, Any]] = {}
    for text in phi:
        spec = parse_yaml(text, f"--phi {shorten(text)}")
        name = base_name = _describe_phi(spec)
        number = 1
        while name in overrides_by_name:
            number += 1
            name = f"{base_name}-{number}"
        overrides_by_name[name] = {"phi": spec}
    return overrides_by_name


def _describe_phi(spec: Any) -> str:
    if isinstance(spec, Mapping) and "name" not in spec:
        return ",".join(f"{site}={attention.describe(block)}" for site, block in spec.items())
    return attention.describe(spec)


def _read_settings(name: str) -> dict[str, dict[str, Any]]:
    """Settings of a YAML file: name -> overrides, nested or with dotted keys."""
    path = find_config(name, "--settings")
    values = read_yaml(path)
    if not values:
        raise UserError(f"{path}: expected settings, name: {{key: value}}, got none")
    for key, value in values.items():
        if not isinstance(value or {}, dict):
            raise UserError(f"{path}: {key}: expected overrides as a mapping, got {value!r}")
    return {str(key): value or {} for key, value in values.items()}


def _make_settings(
    base: Config, overrides_by_name: Mapping[str, Mapping[str, Any]]
) -> tuple[Setting, ...]:
    settings = []
    for name, overrides in overrides_by_name.items():
        settings.append(_make_setting(base, name, dict(flatten(overrides))))
    return distinct(settings)


def distinct(settings: Sequence[Setting]) -> tuple[Setting, ...]:
    """Return the settings.

    Raises:
        UserError: two have the same folder; not every file system distinguishes Se from se.
    """
    folders = set()
    for setting in settings:
        if setting.folder.lower() in folders:
            raise UserError(
                f"setting '{setting.name}': another setting has the same folder"
                f" '{setting.folder}'; rename one of them"
            )
        folders.add(setting.folder.lower())
    return tuple(settings)


def _make_setting(base: Config, name: str, changes: dict[str, Any]) -> Setting:
    seed_offset = changes.pop("seed", 0)
    if type(seed_offset) is not int:
        raise UserError(
            f"setting '{name}': seed: expected an integer, added to --seeds, got {seed_offset!r}"
        )
    for key in FIXED_KEYS:
        if key in changes:
            raise UserError(f"setting '{name}': {key} is set by the comparison and cannot vary")
    try:
        config = update_config(base, changes)
    except UserError as error:
        raise UserError(f"setting '{name}': {error}") from None
    return Setting(name, folder_name(name), _with_selection(config, name), seed_offset)


def _with_selection(config: Config, name: str) -> Config:
    """Settle which epoch is scored: never one chosen on the images that settings are scored on.

    The best of several evaluations is the better, the noisier the curve is; so a setting with a
    noisy curve would have an advantage.
    """
    train = config.train
    if config.data.test is not None:
        return update_config(config, {"train.select": train.select or "best"})
    problem = None
    if train.patience:
        problem = f"train.patience={train.patience}: would stop at an epoch chosen on"
    if train.select == "best":
        problem = "train.select=best: would choose the epoch on"
    if problem is not None:
        raise UserError(
            f"setting '{name}': {problem} the images that the settings are scored on; leave it "
            "out, or name a third split as data.test"
        )
    return update_config(config, {"train.select": "last"})


def folder_name(name: str) -> str:
    """A setting's name as a folder name; a long one is cut off and told apart by a checksum."""
    folder = re.sub(r"[^\w.=,()+-]+", "_", name).strip(".") or "_"
    if len(folder.encode()) <= MAX_NAME:
        return folder
    return f"{folder[:40]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _refuse_other_images(settings: Sequence[Setting]) -> None:
    expected = settings[0].config.data.model_dump(exclude=FREE_DATA_KEYS)
    for setting in settings[1:]:
        data = setting.config.data.model_dump(exclude=FREE_DATA_KEYS)
        for key, value in expected.items():
            if data[key] != value:
                raise UserError(
                    f"setting '{setting.name}': data.{key} differs;"
                    " settings are compared on the same test images"
                )
