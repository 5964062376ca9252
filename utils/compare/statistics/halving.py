"""Successive halving: few seeds for many candidates, more seeds for those that stay ahead.

Source: Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter
Optimization", AISTATS 2016. The result is a ranking and no evidence: the best of many looks better
than it is. Finalists are therefore compared again, with other seeds and on other images.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from utils.core.errors import UserError
from utils.core.validation import SavedSection

Gains = dict[str, dict[int, float]]  # candidate -> seed -> AP points ahead of the baseline


class SearchResult(SavedSection):
    """What a search found.

    Attributes:
        gains: the candidates with a score, best first.
        blocks: block -> AP points above the mean block, best first.
        sites: site -> AP points above the mean site, best first.
    """

    gains: Gains
    blocks: dict[str, float]
    sites: dict[str, float]


@dataclass(frozen=True)
class Rung:
    """A stage of the search.

    Attributes:
        candidates: how many take part, the best of the rung before.
        seeds: seeds that each of them is trained with; no earlier rung had them.
    """

    candidates: int
    seeds: tuple[int, ...]


def make_rungs(candidates: int, budget: int, finalists: int) -> list[Rung]:
    """Divide a budget of trials among rungs.

    Every rung takes half of the candidates of the one before, or fewer where the budget does not
    allow that many. What is left is divided evenly among the rungs to come; the last one decides
    who of twice as many or fewer is a finalist.

    Args:
        candidates: number of candidates.
        budget: number of trials, that of the baseline not included.
        finalists: number of candidates that the search is to find.

    Raises:
        UserError: the budget does not try each candidate once.
    """
    if budget < candidates:
        raise UserError(
            f"--budget {budget}: there are {candidates} candidates, and each takes at least one "
            "trial; raise it, or name fewer --blocks or --sites"
        )
    rungs = [Rung(candidates, (0,))]
    size, left, seed = candidates, budget - candidates, 1
    while math.ceil(size / 2) > finalists:
        share = left // (math.ceil(math.log2(size / finalists)) - 1)
        size = min(math.ceil(size / 2), share)
        if size <= finalists:
            break
        count = share // size
        rungs.append(Rung(size, tuple(range(seed, seed + count))))
        left -= size * count
        seed += count
    *earlier, last = rungs
    more = range(seed, seed + left // last.candidates)
    return [*earlier, Rung(last.candidates, (*last.seeds, *more))]


def halve(
    names: Sequence[str],
    rungs: Sequence[Rung],
    run: Callable[[Sequence[str], Sequence[int]], Gains],
) -> Gains:
    """Run the rungs.

    Args:
        names: the candidates.
        rungs: from `make_rungs`.
        run: trains candidates with seeds; it leaves out those that have no score.

    Returns:
        The candidates with a score, best first: those of the last rung before those that only
        reached the one before, and so on.
    """
    gains: Gains = {}
    order = list(names)
    for rung in rungs:
        taking_part = order[: rung.candidates]
        for name, by_seed in run(taking_part, rung.seeds).items():
            gains.setdefault(name, {}).update(by_seed)
        scored = [name for name in taking_part if name in gains]
        best_first = sorted(scored, key=lambda name: -mean_gain(gains[name]))
        order = best_first + order[rung.candidates :]
    return {name: gains[name] for name in order if name in gains}


def mean_gain(by_seed: Mapping[int, float]) -> float:
    """Mean over seeds, in points."""
    return float(np.mean(list(by_seed.values())))


def main_effects(
    gains: Gains, parts: Mapping[str, tuple[str, str]]
) -> tuple[dict[str, float], dict[str, float]]:
    """What all candidates with a block have in common, and all at a site.

    Least squares of `gain = seed + block + site`: with several hundred candidates that were trained
    once each, the effect of a block rests on all sites that it was tried at.

    Args:
        gains: gains of the candidates.
        parts: candidate -> block and site.

    Returns:
        Block -> AP points above the mean block, and site -> likewise; best first.
    """
    rows = []
    for name, by_seed in gains.items():
        rows += [(*parts[name], seed, gain) for seed, gain in by_seed.items()]
    *factors, values = zip(*rows, strict=True)
    levels, indicators = [], []
    for factor in factors:
        names, index = np.unique(factor, return_inverse=True)
        levels.append(names.tolist())
        indicators.append(np.eye(len(names))[index])
    solution = np.linalg.lstsq(np.hstack(indicators), np.array(values), rcond=None)[0]
    blocks, sites = len(levels[0]), len(levels[1])
    return (
        _centered(levels[0], solution[:blocks]),
        _centered(levels[1], solution[blocks : blocks + sites]),
    )


def _centered(names: Sequence[str], effects: np.ndarray) -> dict[str, float]:
    """Names with their effects relative to the mean effect, best first."""
    centered = effects - effects.mean()
    return {names[index]: float(centered[index]) for index in np.argsort(-centered, kind="stable")}
