"""The plan of a comparison: settings, seeds, and the folder of every trial."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.compare.planning.facts import Foreign
from utils.compare.statistics.halving import SearchResult
from utils.core.overrides import flatten
from utils.core.schema import Config

TRIALS = "trials"  # folder of the trials, below the comparison's
FIXED_KEYS = ("name", "output")  # the comparison itself sets them
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


def comparable_values(config: Config) -> dict[str, Any]:
    """Dotted key -> value, of all keys but those that a comparison sets itself."""
    return dict(flatten(config.model_dump(mode="json", exclude=set(FIXED_KEYS))))


def _values(setting: Setting) -> dict[str, Any]:
    values = dict(flatten(setting.config.model_dump(mode="json")))
    return {**values, "seed": setting.seed_offset}
