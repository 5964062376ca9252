"""How often the verdicts are wrong, and how often they find a difference: simulated scores.

`python -m utils.compare.simulation` prints the tables of `docs/comparing.md`; the tests run the
same functions with fewer draws. A score is the sum of a part that the settings share for a seed
and of each setting's own noise, both in AP points.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from utils.compare.statistics.group_sequential import Look, repeated_p
from utils.compare.statistics.halving import Gains, halve, make_rungs
from utils.compare.statistics.paired import (
    ALPHA,
    MIN_SEEDS_OF_FAMILY,
    holm,
    min_seeds,
    power,
    stats,
    t_test,
)

DRAWS = 40_000
LOOKS = (3, 5, 8, 12, 20)  # of the tables
SHARED = 2.0  # standard deviation of what the settings of a seed have in common
COLLAPSE = 10.0  # points that a run loses when it collapses
Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def _collapsing(share: float) -> Draw:
    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return rng.normal(size=shape) - COLLAPSE * (rng.random(shape) < share)

    return draw


NOISE: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "Student t, 3 degrees of freedom": lambda rng, shape: rng.standard_t(3, shape),
    "lognormal": lambda rng, shape: rng.lognormal(0, 1, shape),
    "uniform": lambda rng, shape: rng.random(shape),
    "normal, one run in ten collapses by 10": _collapsing(0.1),
    "normal, every second run collapses by 10": _collapsing(0.5),
}


def draw_differences(
    rng: np.random.Generator, settings: int, seeds: int, noise: str = "normal", draws: int = DRAWS
) -> np.ndarray:
    """Differences to a baseline without a true difference, `(draws, settings, seeds)`."""
    shared = SHARED * rng.normal(size=(draws, 1, seeds))
    baseline = shared + NOISE[noise](rng, (draws, 1, seeds))
    return shared + NOISE[noise](rng, (draws, settings, seeds)) - baseline


def claims(differences: np.ndarray) -> np.ndarray:
    """Which differences get the verdict better or worse: bool `(draws, settings)`."""
    settings, seeds = differences.shape[1:]
    if seeds < min_seeds(settings):
        return np.zeros(differences.shape[:2], bool)
    return holm(t_test(differences)) <= ALPHA


def family_error(noise: str, settings: int, seeds: int, draws: int = DRAWS, seed: int = 0) -> float:
    """The share of reports that claim any difference although there is none."""
    rng = np.random.default_rng([seed, settings, seeds])
    differences = draw_differences(rng, settings, seeds, noise, draws)
    return float((holm(t_test(differences)) <= ALPHA).any(1).mean())


def equivalence_error(seeds: int, difference: float, draws: int = DRAWS) -> float:
    """How often a setting whose true difference is this many margins is called practically equal.

    The spread of the differences is half the margin; their noise is normal.
    """
    rng = np.random.default_rng([seeds, 1])
    differences = difference + 0.5 * rng.normal(size=(draws, seeds))
    return float((_equivalence_p(differences, 1.0) <= ALPHA).mean())


def _equivalence_p(differences: np.ndarray, margin: float) -> np.ndarray:
    """p of two one-sided t tests along the last axis."""
    seeds = differences.shape[-1]
    error = differences.std(-1, ddof=1) / np.sqrt(seeds)
    return stats.t.sf((margin - np.abs(differences.mean(-1))) / error, seeds - 1)


class Outcome(NamedTuple):
    """What declared looks end with; arrays `(draws, settings)`.

    Attributes:
        claimed: whether a difference is claimed.
        equal: whether a setting is called practically equal.
        seeds: number of seeds of each comparison.
    """

    claimed: np.ndarray
    equal: np.ndarray
    seeds: np.ndarray

    @property
    def trials(self) -> np.ndarray:
        """Number of trials of each report, those of the baseline included, `(draws,)`."""
        return self.seeds.sum(1) + self.seeds.max(1)


def look_by_look(
    differences: np.ndarray, looks: Sequence[int] = LOOKS, margin: float | None = None
) -> Outcome:
    """Stop every comparison at its first verdict, as `compare.py --looks` does.

    Args:
        differences: `(draws, settings, seeds)`.
        looks: number of seeds at each look.
        margin: of practical equality; None: none is declared.
    """
    shape = differences.shape[:2]
    claimed, equal, is_open = np.zeros(shape, bool), np.zeros(shape, bool), np.ones(shape, bool)
    p, equivalence_p = np.ones(shape), np.ones(shape)
    seeds = np.full(shape, looks[-1])
    for position, count in enumerate(looks):
        if count < min_seeds(shape[1]):
            continue
        look, seen = Look(tuple(looks), position), differences[..., :count]
        p = np.where(is_open, repeated_p(t_test(seen), look), p)
        claimed |= is_open & (holm(p) <= ALPHA)
        if margin is not None and count >= MIN_SEEDS_OF_FAMILY:
            one_sided = np.minimum(_equivalence_p(seen, margin), 0.5)
            equivalence_p = np.where(is_open, repeated_p(2 * one_sided, look) / 2, equivalence_p)
            equal |= is_open & (holm(equivalence_p) <= ALPHA) & ~claimed
        seeds[is_open & (claimed | equal)] = count
        is_open &= ~(claimed | equal)
    return Outcome(claimed, equal, seeds)


def sequential_error(
    noise: str, settings: int, looks: Sequence[int] = LOOKS, draws: int = DRAWS // 2
) -> float:
    """The share of reports with declared looks that claim any difference although there is none."""
    rng = np.random.default_rng([3, settings])
    differences = draw_differences(rng, settings, looks[-1], noise, draws)
    return float(look_by_look(differences, looks).claimed.any(1).mean())


def search_once(
    rng: np.random.Generator, truth: np.ndarray, noise: float, budget: int, finalists: int = 3
) -> tuple[float, bool]:
    """Search among candidates, and compare the finalists on six fresh seeds.

    Args:
        rng: source of the noise.
        truth: what each candidate is truly ahead of the baseline, in points.
        noise: standard deviation of a difference of two trainings, in points.
        budget: number of trials of the search.
        finalists: number of finalists.

    Returns:
        What the finalist with the best comparison is truly ahead; whether any is called better.
    """
    names = [str(index) for index in range(len(truth))]

    def run(taking_part: Sequence[str], seeds: Sequence[int]) -> Gains:
        return {
            name: {seed: truth[int(name)] + noise * rng.normal() for seed in seeds}
            for name in taking_part
        }

    found = halve(names, make_rungs(len(truth), budget, finalists), run)
    best = truth[[int(name) for name in list(found)[:finalists]]]
    differences = best[:, None] + noise * rng.normal(size=(len(best), 6))
    means = differences.mean(1)
    better = claims(differences[None])[0] & (means > 0)
    return float(best[means.argmax()]), bool(better.any())


def search_quality(good: int, noise: float, draws: int, budget: int = 650) -> tuple[float, float]:
    """Search among 325 candidates, of which some are ahead by 1 AP, all others by nothing.

    Returns:
        The mean of what the chosen candidate is truly ahead; the share of searches that end with a
        candidate that is called better.
    """
    truth = np.zeros(325)
    truth[:good] = 1.0
    rng = np.random.default_rng([good, budget])
    gains, claimed = zip(
        *(search_once(rng, truth, noise, budget) for _ in range(draws)), strict=True
    )
    return float(np.mean(gains)), float(np.mean(claimed))


def better_though_collapsing(
    seeds: int, spread: float, draws: int = DRAWS, gain: float = 1.0
) -> float:
    """How often a setting is called better that gains a bit but collapses in one run of ten.

    Args:
        seeds: number of seeds.
        spread: standard deviation of the paired difference of runs that do not collapse.
        draws: number of simulated comparisons.
        gain: what it gains where it does not collapse, in points.
    """
    rng = np.random.default_rng(seeds)
    differences = gain + spread * rng.normal(size=(draws, 1, seeds))
    differences -= COLLAPSE * (rng.random(differences.shape) < 0.1)
    better = claims(differences)[:, 0] & (differences[:, 0].mean(1) > 0)
    return float(better.mean())


def _print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print(f"| {' | '.join(head)} |")
    print(f"| --- |{' ---: |' * (len(head) - 1)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _print_looks() -> None:
    """What looks cost and save: power and trials, trials of several settings, false claims."""
    last, spread = LOOKS[-1], np.sqrt(2)  # of a difference, where the spread of a score is 1
    print(f"\nLooks after {LOOKS} seeds against {last} fixed ones: one comparison, normal noise\n")
    rows = []
    for effect in (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0):
        rng = np.random.default_rng([7, 1])
        outcome = look_by_look(draw_differences(rng, 1, last) + effect * spread)
        fixed = float(power(last, 1.0, effect)) if effect else ALPHA
        shares = [_percent(share) for share in (fixed, outcome.claimed.mean())]
        rows.append([f"{effect:g} spreads", *shares, f"{outcome.seeds.mean():.1f}"])
    _print_table(
        ["true difference", f"claimed with {last} seeds", "claimed with looks", "mean seeds"], rows
    )
    print(f"\nMean number of trials, of {4 * last}: a baseline and three settings\n")
    rows = []
    for effects in ((0.0, 0.0, 0.0), (0.0, 0.0, 1.5), (1.5, 1.5, 1.5)):
        rng = np.random.default_rng([7, 3])
        shift = spread * np.array(effects)[:, None]
        differences = draw_differences(rng, 3, last, draws=DRAWS // 2) + shift
        trials = [look_by_look(differences, margin=each).trials for each in (None, spread)]
        rows.append([", ".join(f"{each:g}" for each in effects)])
        rows[-1] += [f"{each.mean():.1f}" for each in trials]
    _print_table(["true differences, spreads", "no margin", "margin of one spread"], rows)
    print(f"\nFalse claims with looks after {LOOKS} seeds\n")
    counts = (1, 3, 24)
    rows = []
    for noise in NOISE:
        errors = [sequential_error(noise, settings) for settings in counts]
        rows.append([noise, *map(_percent, errors)])
    _print_table(["noise of a score", *(f"comparisons: {count}" for count in counts)], rows)


def main() -> None:
    """Print every table."""
    for settings in (1, 3, 24):
        print(f"\nFalse claims: share of reports with {settings} comparisons that claim any\n")
        counts = (3, 5, 6, 10)
        rows = []
        for noise in NOISE:
            errors = [family_error(noise, settings, seeds) for seeds in counts]
            rows.append([noise, *map(_percent, errors)])
        _print_table(["noise of a score", *(f"{count} seeds" for count in counts)], rows)
    print("\nCalled practically equal: one comparison, spread half the margin\n")
    counts = (5, 6, 8, 10)
    rows = []
    for difference in (0.0, 0.5, 1.0, 1.2):
        shares = [equivalence_error(seeds, difference) for seeds in counts]
        rows.append([f"{difference:g} margins", *map(_percent, shares)])
    _print_table(["true difference", *(f"{count} seeds" for count in counts)], rows)
    print("\nSearch: 325 candidates, 3 finalists on 6 fresh seeds\n")
    rows = []
    for good in (0, 8):
        for spread in (0.25, 0.5, 1.0):
            gain, share = search_quality(good, spread, DRAWS // 20)
            rows.append([f"{good}", f"{spread} AP", f"{gain:.2f} AP", _percent(share)])
    head = [
        "candidates 1 AP ahead",
        "spread of a difference",
        "true gain of the chosen one",
        "any called better",
    ]
    _print_table(head, rows)
    _print_looks()
    print("\nCalled better: 1 AP ahead, but one run in ten collapses by 10\n")
    counts = (5, 6, 8, 10)
    rows = []
    for spread in (0.2, 0.4, 0.6):
        shares = [better_though_collapsing(seeds, spread) for seeds in counts]
        rows.append([f"{spread} AP", *map(_percent, shares)])
    _print_table(["spread of the differences", *(f"{count} seeds" for count in counts)], rows)


if __name__ == "__main__":
    main()
