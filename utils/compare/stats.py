"""What paired scores of a few seeds can show. Scores and differences in points (100 AP = 1).

A pair is two trainings of the same seed: the same data order, the same start of the shared layers. The verdict comes
from Student's paired t test over seeds, corrected by Holm over all pairs of settings that get a verdict.
`docs/comparing.md` says why, and what the other numbers are for.

Student: The probable error of a mean, Biometrika 1908. Holm: A simple sequentially rejective multiple test procedure,
Scand. J. Statistics 1979. Hedges: Distribution theory for Glass's estimator, J. Educational Statistics 1981.
Zou, Donner: Construction of confidence limits about effect measures, Statistics in Medicine 2008.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from utils.core.errors import UserError

try:
    from scipy import special, stats
except ImportError:
    raise UserError(
        "comparisons need scipy, which is not installed: pip install -r requirements-compare.txt"
    ) from None

ALPHA = (
    0.05  # the chance, over the whole family of pairs, to claim a difference where there is none
)
POWER = 0.8
MIN_SEEDS = 3  # for a verdict: two differences may agree by chance wherever noise has two lumps (a run that collapses)
NO_SPREAD = 1e-9  # differences that agree to so many points were not drawn independently
EXACT_SEEDS = 13  # up to here all 2^n sign flips are counted
MOST_SEEDS = 1000

Verdict = Literal["better", "worse", "no difference that these runs can show"]


@dataclass(frozen=True)
class Paired:
    """Differences of one setting to its reference, one a seed; NaN where there are too few seeds for a number.

    Attributes:
        seeds: number of pairs. mean, spread: of the differences (standard deviation, n - 1).
        low, high: 95% t interval of the mean over seeds. p: paired t test, two-sided, not corrected.
        sign_p: exact sign-flip permutation test of the mean. sign_floor: the smallest p that it has at this number.
        effect: Hedges' g of the differences, Cohen's d_z without its bias; from three seeds on.
    """

    seeds: int
    mean: float
    spread: float
    low: float
    high: float
    p: float
    sign_p: float
    sign_floor: float
    effect: float


def paired(differences: np.ndarray) -> Paired:
    """Summarize the differences `(seeds,)` of one pair of settings."""
    count = len(differences)
    mean = float(np.mean(differences)) if count else math.nan
    if count < 2:
        none = math.nan
        return Paired(count, mean, none, none, none, none, none, sign_floor(count), none)
    spread = float(np.std(differences, ddof=1))
    half = float(stats.t.isf(ALPHA / 2, count - 1)) * spread / math.sqrt(count)
    return Paired(
        seeds=count,
        mean=mean,
        spread=spread,
        low=mean - half,
        high=mean + half,
        p=float(t_test(differences)),
        sign_p=_sign_flip(differences),
        sign_floor=sign_floor(count),
        effect=_hedges(mean, spread, count),
    )


def t_test(differences: np.ndarray) -> np.ndarray:
    """Two-sided p of Student's paired test along the last axis, which has at least two entries.

    Where all differences agree exactly p is 1: the seeds then repeat one run, and say nothing about the next.
    """
    frozen = np.std(differences, axis=-1) <= NO_SPREAD
    safe = np.where(frozen[..., None], np.arange(differences.shape[-1], dtype=float), differences)
    return np.where(frozen, 1.0, stats.ttest_1samp(safe, 0.0, axis=-1).pvalue)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's corrected p values along the last axis: the k-th smallest of m, times m - k + 1, made ascending."""
    order = np.argsort(p, axis=-1)
    count = p.shape[-1]
    scaled = np.take_along_axis(p, order, -1) * np.arange(count, 0, -1)
    corrected = np.minimum(np.maximum.accumulate(scaled, axis=-1), 1.0)
    out = np.empty_like(corrected)
    np.put_along_axis(out, order, corrected, -1)
    return out


def verdicts(pairs: Sequence[Paired]) -> list[tuple[float, Verdict]]:
    """The family's verdicts: corrected p (NaN with fewer than three seeds) and the sentence's core, in its order."""
    judged = [index for index, pair in enumerate(pairs) if pair.seeds >= MIN_SEEDS]
    corrected = np.full(len(pairs), np.nan)
    corrected[judged] = holm(np.array([pairs[index].p for index in judged]))
    return [
        (float(p), _verdict(pair.mean, float(p))) for pair, p in zip(pairs, corrected, strict=True)
    ]


def _verdict(mean: float, corrected_p: float) -> Verdict:
    if not corrected_p <= ALPHA:
        return "no difference that these runs can show"
    return "better" if mean > 0 else "worse"


def sign_floor(seeds: int) -> float:
    """The smallest two-sided p of a sign-flip test: 2 of 2^n outcomes. 0.25 for 3 pairs, 0.0625 for 5."""
    return 2.0 ** (1 - seeds) if seeds else math.nan


def power(
    seeds: int | np.ndarray, spread: float, difference: float = 1.0, alpha: float = ALPHA
) -> np.ndarray:
    """The chance to find a true `difference`, in its direction, by the paired t test (noncentral t).

    Args:
        seeds: pairs; below three there is no verdict and the chance is 0.
        spread: standard deviation of the paired differences, points.
        alpha: level of the test; with a family of m pairs, ALPHA / m is what Holm grants at least.
    """
    enough = np.asarray(seeds) >= MIN_SEEDS
    seeds = np.maximum(np.asarray(seeds, float), 2)
    shift = np.minimum(difference / max(spread, NO_SPREAD) * np.sqrt(seeds), 1e3)
    limit = stats.t.isf(alpha / 2, seeds - 1)
    # scipy's noncentral t loses its digits for large shifts, where the chance is 1 beyond doubt
    certain = shift > 30 + 30 * limit
    found = stats.nct.sf(limit, seeds - 1, np.where(certain, 1.0, shift))
    return enough * np.where(certain, 1.0, np.nan_to_num(found, nan=1.0))


def seeds_needed(spread: float, difference: float = 1.0, alpha: float = ALPHA) -> int | None:
    """The fewest seeds that find a true `difference` with a chance of 80%; none: more than 1000."""
    candidates = np.arange(MIN_SEEDS, MOST_SEEDS + 1)
    enough = power(candidates, spread, difference, alpha) >= POWER
    return int(candidates[np.argmax(enough)]) if enough.any() else None


def spread_range(spread: float, seeds: int) -> tuple[float, float]:
    """95% interval of the true spread (chi-square): from few seeds the spread itself is known roughly."""
    degrees = seeds - 1
    low, high = stats.chi2.ppf((1 - ALPHA / 2, ALPHA / 2), degrees)
    return spread * math.sqrt(degrees / low), spread * math.sqrt(degrees / high)


def combined_interval(pair: Paired, images: tuple[float, float]) -> tuple[float, float]:
    """95% interval of the mean difference for new seeds and new pictures.

    The distances from the mean to the ends of both intervals are added as squares (Zou and Donner), so it is wider
    than either. What seeds and images do only together is in both: rather too wide than too narrow.

    Args:
        images: the 95% interval over test images.
    """
    low = math.hypot(pair.mean - pair.low, max(pair.mean - images[0], 0.0))
    high = math.hypot(pair.high - pair.mean, max(images[1] - pair.mean, 0.0))
    return pair.mean - low, pair.mean + high


def _hedges(mean: float, spread: float, count: int) -> float:
    """d_z = mean / spread, times Hedges' exact correction; NaN for two seeds, where it is zero, and without spread."""
    if count < 3 or spread <= NO_SPREAD:
        return math.nan
    half = (count - 1) / 2
    bias = math.exp(special.gammaln(half) - special.gammaln(half - 0.5)) / math.sqrt(half)
    return bias * mean / spread


def _sign_flip(differences: np.ndarray) -> float:
    """p of the mean under all sign flips; beyond 13 seeds under 9999 of them, drawn from a fixed seed."""
    count = 2 ** len(differences) if len(differences) <= EXACT_SEEDS else 9999
    result = stats.permutation_test(
        (differences,),
        lambda values, axis: np.mean(values, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=count,
        rng=np.random.default_rng(0),
    )
    return float(result.pvalue)
