"""From the words of a command line to a plan."""

from collections.abc import Sequence
from pathlib import Path

from utils.compare.planning.plan import Plan, Setting
from utils.compare.planning.settings import (
    make_settings,
    read_phi,
    read_settings,
    refuse_other_images,
)
from utils.compare.statistics.paired import MAX_SEEDS, MIN_SEEDS
from utils.core.config import find_config, load_config, update_config
from utils.core.errors import UserError, nearest, shorten
from utils.core.overrides import parse_overrides
from utils.engine.experiment import check_config

DEFAULT_PHI = ("none", "se", "cbam", "eca")
DEFAULT_SEEDS = (0, 1, 2, 3, 4, 5)
MAX_LOOKS = 20


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
    overrides_by_name = read_phi(phi if phi or settings_file else DEFAULT_PHI)
    if settings_file:
        overrides_by_name.update(read_settings(settings_file))
    settings = make_settings(base, overrides_by_name)
    if len(settings) < 2:
        raise UserError("a comparison needs at least two settings: --phi none se")
    refuse_other_images(settings)
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
