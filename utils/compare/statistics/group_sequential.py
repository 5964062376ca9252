"""Group-sequential tests: looks at a growing number of seeds, each of which may end a comparison.

Looking at results several times and stopping at the first p below 5% claims too much. Here every
look has a level of its own, so that all looks together claim a difference that does not exist in a
share `alpha` of cases. After a share s of the seeds, `alpha` s^2 may have been spent (Kim, DeMets).

The levels follow from the joint distribution of the t statistics at all looks. For normal noise
without a difference it has no unknown parameter, because t depends on no scale; it is simulated.

Kim, DeMets: Design and analysis of group sequential tests based on the type I error spending rate
function, Biometrika 1987.
Jennison, Turnbull: Interim analyses: the repeated confidence interval approach, JRSS B 1989.
"""

import math
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy import stats

SPENDING_POWER = 2
DRAWS = 200_000
TILT = 0.7  # spread of the simulated true differences, in standard deviations of a difference
ALPHAS = np.geomspace(1e-5, 1, 26)  # where levels are computed; between them, interpolated


class Look(NamedTuple):
    """The look at which a comparison is judged.

    Attributes:
        schedule: number of seeds at each declared look, ascending; empty: a single look.
        position: which of them it is, from 0.
    """

    schedule: tuple[int, ...] = ()
    position: int = 0


ONLY_LOOK = Look()


def level(look: Look, alpha: float) -> float:
    """The level at a look: p at or below it ends a comparison whose looks share `alpha`.

    Args:
        look: the look.
        alpha: level of all looks together, 1e-5 to 1.
    """
    if not look.schedule:
        return alpha
    levels = _levels(look.schedule)[look.position]
    return float(np.exp(np.interp(math.log(alpha), np.log(ALPHAS), np.log(levels))))


def repeated_p(p: np.ndarray | float, look: Look) -> np.ndarray | float:
    """The smallest `alpha`, at least 1e-5, at which a look's p would end the comparison.

    Args:
        p: p of a two-sided test at this look. For a one-sided test, twice its p makes twice the
            result: hardly any path crosses the levels on both sides.
        look: the look.
    """
    if not look.schedule:
        return p
    levels = _levels(look.schedule)[look.position]
    with np.errstate(divide="ignore"):
        return np.exp(np.interp(np.log(p), np.log(levels), np.log(ALPHAS)))


@lru_cache
def _levels(schedule: tuple[int, ...]) -> np.ndarray:
    """The level of every look for every one of `ALPHAS`, `(looks, alphas)`.

    A look's p is uniform, so P(p <= c) is exactly c. Simulated is only the part of it that was
    below the level of an earlier look, too.

    True differences are drawn from N(0, TILT^2), which makes small p frequent; each path counts by
    the ratio of its densities without and with such a difference.
    """
    rng = np.random.default_rng(0)
    shift = TILT * rng.normal(size=DRAWS)
    total, squares = np.zeros(DRAWS), np.zeros(DRAWS)
    row_crossed = np.full(DRAWS, len(ALPHAS))  # the first of `ALPHAS` at which a path has ended
    found = np.empty((len(schedule), len(ALPHAS)))
    for index, (before, seeds) in enumerate(pairwise((0, *schedule))):
        new = seeds - before
        part = new * shift + math.sqrt(new) * rng.normal(size=DRAWS)
        total += part
        squares += part**2 / new + (rng.chisquare(new - 1, DRAWS) if new > 1 else 0)
        error = np.sqrt((squares - total**2 / seeds) / (seeds - 1) * seeds)
        p = 2 * stats.t.sf(np.abs(total) / error, seeds - 1)
        scale = 1 + seeds * TILT**2
        weight = math.sqrt(scale) * np.exp(-0.5 * TILT**2 / scale * total**2) / DRAWS
        share = (seeds**SPENDING_POWER - before**SPENDING_POWER) / schedule[-1] ** SPENDING_POWER
        order = np.argsort(p)
        ended = order[row_crossed[order] < len(ALPHAS)]
        p_ended, weight_ended, row_ended = p[ended], weight[ended], row_crossed[ended]
        for row, alpha in enumerate(ALPHAS):
            counted = row_ended <= row
            found[index, row] = _solve(alpha * share, p_ended[counted], weight_ended[counted])
        found[index] = np.maximum.accumulate(found[index])  # against the noise of the simulation
        row_crossed = np.minimum(row_crossed, np.searchsorted(found[index], p))
    return found


def _solve(share: float, p: np.ndarray, weight: np.ndarray) -> float:
    """The c at which c minus the weight of all p <= c is `share`.

    Args:
        share: of the paths, that is to end at this look.
        p: of the paths that have ended before, ascending.
        weight: their share.
    """
    candidates = share + np.append(0, np.cumsum(weight))
    is_reached = candidates <= np.append(p, np.inf)
    return min(float(candidates[np.argmax(is_reached)]), 1.0)
