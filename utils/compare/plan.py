"""What is compared: settings, seeds, and the folder of every training."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nets import attention
from utils.core.config import find_config, load_config, read_yaml, update_config
from utils.core.errors import UserError, nearest
from utils.core.schema import Config
from utils.engine.experiment import check_config

DEFAULT_PHI = ("none", "se", "cbam", "eca")
DEFAULT_SEEDS = (0, 1, 2)
NOT_VARIED = ("name", "output")
# a comparison measures every setting on the same images; these keys may differ nevertheless
FREE_DATA = {"train", "cache", "cache_gb", "gpu_cache_gb", "download", "shapes_train"}


@dataclass(frozen=True)
class Variant:
    """One setting.

    Attributes:
        name: as the report calls it. folder: the same as a folder's name. config: with the base's seed.
        shift: added to every seed, so that a setting can be compared with itself. control_of: the setting whose
            fair control this is.
    """

    name: str
    folder: str
    config: Config
    shift: int = 0
    control_of: str | None = None


@dataclass(frozen=True)
class Cell:
    """One training: a setting and a seed. `config` is complete, `folder` is its run folder."""

    variant: str
    seed: int
    folder: Path
    config: Config


@dataclass(frozen=True)
class Plan:
    """A comparison. `seeds` are those that were asked for; `config_name` is the base experiment."""

    out: Path
    config_name: str
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    baseline: str

    @property
    def cells(self) -> list[Cell]:
        """All trainings, seed by seed, so that an unfinished comparison has every setting."""
        return [self._cell(variant, seed) for seed in self.seeds for variant in self.variants]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(setting, reference): everything with the baseline, and a setting with its own fair control."""
        rest = [variant for variant in self.variants if variant.name != self.baseline]
        controls = [(variant.control_of, variant.name) for variant in rest if variant.control_of]
        return [(variant.name, self.baseline) for variant in rest] + [
            (a, b) for a, b in controls if a
        ]

    def _cell(self, variant: Variant, seed: int) -> Cell:
        parent = self.out / "cells" / variant.folder
        own = {"seed": seed + variant.shift, "name": f"seed-{seed}", "output": str(parent)}
        return Cell(
            variant.name, seed, parent / f"seed-{seed}", variant.config.model_copy(update=own)
        )


def make_plan(
    config: str,
    phi: Sequence[str] = (),
    variants: str | None = None,
    seeds: Sequence[int] = DEFAULT_SEEDS,
    out: str | None = None,
    baseline: str | None = None,
    overrides: Sequence[str] = (),
) -> Plan:
    """Read and check everything that a comparison is asked for, before any training.

    Args:
        config: the base experiment. phi: attention settings, as on a command line. variants: a YAML file, name ->
            overrides. Neither: `none se cbam eca`. overrides: `KEY=VALUE`, for all settings.
        out: folder; none: `runs/compare-<config>`. baseline: name; none: `none` if there is one, else the first.

    Raises:
        UserError: anything that cannot be trained or compared.
    """
    _refuse_seed(overrides)
    base = load_config(config, overrides)
    named = {
        **_from_phi(phi if phi or variants else DEFAULT_PHI),
        **(_from_file(variants) if variants else {}),
    }
    built = tuple(_variants(base, named))
    if len(built) < 2:
        raise UserError("a comparison needs two settings at least: --phi none se")
    if len(set(seeds)) < len(seeds) or not seeds:
        raise UserError(
            f"--seeds: expected different whole numbers, got {' '.join(map(str, seeds)) or 'none'}"
        )
    _refuse_other_pictures(built)
    title = find_config(config).stem
    plan = Plan(
        Path(out or f"runs/compare-{title}"), title, built, tuple(seeds), _baseline(baseline, built)
    )
    for variant in built:
        check_config(variant.config)
    return plan


def split_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part `se cbam train.epochs=5` into settings and `KEY=VALUE`, as one list on a command line runs into the next."""
    overrides = [word for word in words if re.match(r"[A-Za-z_][\w.]*=", word)]
    return [word for word in words if word not in overrides], overrides


def ray_address(word: str) -> tuple[str, list[str]]:
    """The value of `--ray`, and the `KEY=VALUE` that it may be instead: without an address, this machine."""
    address, overrides = split_overrides([word])
    return "".join(address) or "local", overrides


def whole_numbers(words: Sequence[str]) -> list[int]:
    """The values of `--seeds`."""
    try:
        return [int(word) for word in words]
    except ValueError:
        raise UserError(f"--seeds: expected whole numbers, got {' '.join(words)}") from None


def _refuse_seed(overrides: Sequence[str]) -> None:
    if any(override.partition("=")[0].strip() == "seed" for override in overrides):
        raise UserError("seed=...: a comparison takes its seeds from --seeds")


def _baseline(asked: str | None, variants: Sequence[Variant]) -> str:
    names = [variant.name for variant in variants]
    if asked is None:
        return "none" if "none" in names else names[0]
    if asked not in names:
        raise UserError(f"--baseline {asked}: no such setting{nearest(asked, names)}")
    return asked


def _from_phi(phi: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Settings by attention alone; one that is named twice is compared with itself."""
    named: dict[str, dict[str, Any]] = {}
    for text in phi:
        try:
            spec = yaml.safe_load(text)
        except yaml.YAMLError:
            raise UserError(f"--phi {text}: not valid YAML") from None
        title = name = _phi_name(spec)
        number = 1
        while name in named:
            number += 1
            name = f"{title}-{number}"
        named[name] = {"phi": spec}
    return named


def _phi_name(spec: Any) -> str:
    if isinstance(spec, Mapping) and "name" not in spec:
        return ",".join(f"{site}={attention.describe(block)}" for site, block in spec.items())
    return attention.describe(spec)


def _from_file(name: str) -> dict[str, dict[str, Any]]:
    """Settings of a YAML file: name -> overrides, nested or with dotted keys; nothing means the base itself."""
    path = find_config(name, "--variants")
    read = read_yaml(path)
    if not read:
        raise UserError(f"{path}: expected settings, name: {{key: value}}, got none")
    for key, value in read.items():
        if not isinstance(value or {}, dict):
            raise UserError(f"{path}: {key}: expected overrides as a mapping, got {value!r}")
    return {str(key): value or {} for key, value in read.items()}


def _variants(base: Config, named: Mapping[str, Mapping[str, Any]]) -> Iterator[Variant]:
    folders: set[str] = set()
    for name, values in named.items():
        flat = dict(_flatten(values))
        shift = flat.pop("seed", 0)
        if type(shift) is not int:
            raise UserError(
                f"setting '{name}': seed: expected a whole number, added to --seeds, got {shift!r}"
            )
        for key in NOT_VARIED:
            if key in flat:
                raise UserError(
                    f"setting '{name}': {key} cannot be varied; the comparison names the folders"
                )
        folder = re.sub(r"[^\w.=,()+-]+", "_", name).strip(".") or "_"
        if folder.lower() in folders:
            raise UserError(
                f"setting '{name}': its folder '{folder}' is taken by another setting; rename it"
            )
        folders.add(folder.lower())
        yield Variant(name, folder, _apply(base, name, flat), shift)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys; a mapping below `phi` is a value."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and name != "phi":
            yield from _flatten(value, f"{name}.")
        else:
            yield name, value


def _apply(base: Config, name: str, flat: Mapping[str, Any]) -> Config:
    try:
        return update_config(base, flat)
    except UserError as error:
        raise UserError(f"setting '{name}': {error}") from None


def _refuse_other_pictures(variants: Sequence[Variant]) -> None:
    first = variants[0].config.data.model_dump(exclude=FREE_DATA)
    for variant in variants[1:]:
        other = variant.config.data.model_dump(exclude=FREE_DATA)
        for key in first:
            if other[key] != first[key]:
                raise UserError(
                    f"setting '{variant.name}': data.{key} differs; settings are compared on the same test images"
                )
