"""Statistics of paired scores over a few seeds. Scores and differences are in points, 0..100.

A pair is two trainings with the same seed: the same order of the data, the same initial values of
the shared layers. Verdicts come from Student's paired t test over seeds, corrected by Holm's method
over all pairs of settings that get one. `docs/comparing.md` explains this choice and the other
numbers.

Student: The probable error of a mean, Biometrika 1908.
Holm: A simple sequentially rejective multiple test procedure, Scand. J. Statistics 1979.
Schuirmann: A comparison of the two one-sided tests procedure, J. Pharmacokinetics 1987.
Hedges: Distribution theory for Glass's estimator, J. Educational Statistics 1981.
Zou, Donner: Construction of confidence limits about effect measures, Statistics in Medicine 2008.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from utils.core.errors import UserError

try:
    from scipy import special, stats
except ImportError:
    raise UserError(
        "comparisons need scipy, which is not installed: pip install -r requirements-compare.txt"
    ) from None

from utils.compare.statistics.group_sequential import ONLY_LOOK, Look, level, repeated_p

ALPHA = 0.05  # probability that any pair of a comparison claims a difference that does not exist
POWER = 0.8
# A few differences may agree by chance wherever the noise has two modes (a training that
# collapses), the more easily the stricter the level: `utils.compare.simulation` says how often.
MIN_SEEDS = 3  # for a verdict on a single pair
MIN_SEEDS_OF_FAMILY = 5  # for one on several
OUTLIER = 5.0  # robust standard deviations from the median
NO_SPREAD = 1e-9  # differences this close, in points, were not drawn independently
EXACT_SEEDS = 13  # up to here all 2^n sign flips are counted
MAX_SEEDS = 1000
Verdict = Literal[
    "better",
    "worse",
    "practically equal",
    "undecided",
    "no difference that these runs can show",
]
EQUAL: Verdict = "practically equal"  # the difference is less than the margin
# Neither a difference nor, if a margin is declared, its absence can be shown
UNDECIDED: Verdict = "undecided"
NO_DIFFERENCE: Verdict = "no difference that these runs can show"
NO_VERDICT = (UNDECIDED, NO_DIFFERENCE)  # more seeds may show more


class Interval(NamedTuple):
    """A 95% interval; NaN if undefined."""

    low: float
    high: float


NO_INTERVAL = Interval(math.nan, math.nan)


@dataclass(frozen=True)
class PairedDifference:
    """Differences of a setting to its reference over seeds; NaN where a number needs more seeds.

    Attributes:
        seeds: number of differences.
        mean: mean of the differences.
        spread: standard deviation of the differences (n - 1).
        interval: 95% t interval of the mean over seeds; at declared looks, a repeated one.
        p: p of the paired t test, two-sided, not corrected.
        sign_p: p of the exact sign-flip permutation test of the mean.
        sign_floor: smallest possible p of that test with this number of seeds.
        effect: Hedges' g of the differences (unbiased Cohen's d_z), for three or more seeds.
    """

    seeds: int
    mean: float
    spread: float
    interval: Interval
    p: float
    sign_p: float
    sign_floor: float
    effect: float


def paired_difference(
    differences: Sequence[float] | np.ndarray, look: Look = ONLY_LOOK
) -> PairedDifference:
    """Summarize the differences of a pair of settings, one per seed.

    Args:
        differences: in points.
        look: the look that they are shown at; its interval holds at all looks together.
    """
    values = np.asarray(differences, float)
    seeds = len(values)
    mean = float(np.mean(values)) if seeds else math.nan
    floor = sign_floor(seeds)
    if seeds < 2:
        nan = math.nan
        return PairedDifference(seeds, mean, nan, NO_INTERVAL, nan, nan, floor, nan)
    spread = float(np.std(values, ddof=1))
    half = float(stats.t.isf(level(look, ALPHA) / 2, seeds - 1)) * spread / math.sqrt(seeds)
    return PairedDifference(
        seeds=seeds,
        mean=mean,
        spread=spread,
        interval=Interval(mean - half, mean + half),
        p=float(t_test(values)),
        sign_p=_sign_flip(values),
        sign_floor=floor,
        effect=_hedges(mean, spread, seeds),
    )


def min_seeds(family: int) -> int:
    """The fewest seeds that get a verdict, if so many tests are made."""
    return MIN_SEEDS if family <= 1 else MIN_SEEDS_OF_FAMILY


def find_outliers(values: Sequence[float]) -> list[int]:
    """Indices of values far from the others: more than five times 1.48 MAD from the median.

    For normal values, 1.48 times the median absolute deviation (MAD) estimates their standard
    deviation, whatever a few outliers are. Fewer than five values have no outliers.
    """
    if len(values) < MIN_SEEDS_OF_FAMILY:
        return []
    distance = np.abs(np.asarray(values, float) - np.median(values))
    scale = stats.median_abs_deviation(values, scale="normal")
    return np.flatnonzero(distance > OUTLIER * max(scale, NO_SPREAD)).tolist()


def t_test(differences: np.ndarray) -> np.ndarray:
    """Two-sided p of Student's paired test along the last axis, which has at least two entries.

    If all differences are equal, p is 1: the seeds then repeat a single training, which says
    nothing about another one.
    """
    equal = np.std(differences, axis=-1) <= NO_SPREAD
    distinct = np.arange(differences.shape[-1], dtype=float)
    testable = np.where(equal[..., None], distinct, differences)
    return np.where(equal, 1.0, stats.ttest_1samp(testable, 0.0, axis=-1).pvalue)


def holm(p: np.ndarray, family: int = 0) -> np.ndarray:
    """Correct p values along the last axis: the k-th smallest of m, times m - k + 1, ascending.

    Args:
        p: p values.
        family: m, if it is more than are given; the others then count as 1, which only makes the
            correction stricter.
    """
    order = np.argsort(p, axis=-1)
    factors = max(family, p.shape[-1]) - np.arange(p.shape[-1])
    scaled = np.take_along_axis(p, order, -1) * factors
    ascending = np.minimum(np.maximum.accumulate(scaled, axis=-1), 1.0)
    corrected = np.empty_like(ascending)
    np.put_along_axis(corrected, order, ascending, -1)
    return corrected


@dataclass(frozen=True)
class Judgement:
    """What the tests say of a pair.

    Attributes:
        p: p of the difference, corrected by Holm's method; NaN without a verdict.
        verdict: the verdict.
        equivalence_p: p of a difference of at least the margin, corrected in a family of its own;
            NaN without a margin, or with fewer than five seeds.
    """

    p: float
    verdict: Verdict
    equivalence_p: float


def equivalence_test(pair: PairedDifference, margin: float) -> float:
    """p of two one-sided t tests (TOST): is the mean difference less than the margin, either way?

    A setting that is better may pass, too: then it is better by less than the margin. If all
    differences are equal, p is 1, as in `t_test`.

    Args:
        pair: differences of at least two seeds.
        margin: in points, > 0.
    """
    if not pair.spread > NO_SPREAD:
        return 1.0
    distance = (margin - abs(pair.mean)) / (pair.spread / math.sqrt(pair.seeds))
    return float(stats.t.sf(distance, pair.seeds - 1))


def judge(
    pairs: Sequence[PairedDifference],
    family: int = 0,
    complete: Sequence[bool] | None = None,
    margin: float | None = None,
    looks: Sequence[Look] | None = None,
) -> list[Judgement]:
    """Judge the pairs of a comparison as one family.

    With declared looks, a pair's p becomes the smallest level of all looks together that this look
    reaches. That is never less than the pair's p value after all looks, so that what Holm's method
    claims at any look is among what it would claim in the end: 5% holds for all looks together.

    Args:
        pairs: their differences.
        family: number of tests that were ever made, if more than these.
        complete: whether each pair may get a verdict; None: all.
        margin: differences below it, in points, do not matter; None: every difference does.
        looks: the look at which each pair is judged; None: there is only one.
    """
    at = [ONLY_LOOK] * len(pairs) if looks is None else looks
    allowed = [True] * len(pairs) if complete is None else complete
    family = max(family, len(pairs))
    least = min_seeds(family)
    p, equivalence_p = np.full(len(pairs), np.nan), np.full(len(pairs), np.nan)
    for index, pair in enumerate(pairs):
        if allowed[index] and pair.seeds >= least:
            p[index] = repeated_p(pair.p, at[index])
        if allowed[index] and pair.seeds >= MIN_SEEDS_OF_FAMILY and margin is not None:
            one_sided = equivalence_test(pair, margin)
            repeated = repeated_p(min(2 * one_sided, 1.0), at[index]) / 2
            equivalence_p[index] = max(one_sided, float(repeated))
    undecided = NO_DIFFERENCE if margin is None else UNDECIDED
    judgements = []
    corrected = zip(pairs, _correct(p, family), _correct(equivalence_p, family), strict=True)
    for pair, own, other in corrected:
        judgements.append(Judgement(own, _verdict(pair.mean, own, other, undecided), other))
    return judgements


def _correct(p: np.ndarray, family: int) -> list[float]:
    """Holm's method where p is not NaN."""
    corrected = p.copy()
    given = ~np.isnan(p)
    corrected[given] = holm(p[given], family)
    return corrected.tolist()


def _verdict(mean: float, p: float, equivalence_p: float, undecided: Verdict) -> Verdict:
    if p <= ALPHA:
        return "better" if mean > 0 else "worse"
    return EQUAL if equivalence_p <= ALPHA else undecided


def sign_floor(seeds: int) -> float:
    """The smallest two-sided p of a sign-flip test: 2 / 2^n."""
    return 2.0 ** (1 - seeds) if seeds else math.nan


def power(
    seeds: int | np.ndarray,
    spread: float,
    difference: float = 1.0,
    family: int = 1,
    look: Look = ONLY_LOOK,
) -> np.ndarray:
    """The chance that the paired t test finds a true difference in its direction (noncentral t).

    Args:
        seeds: number of pairs; with fewer than `min_seeds` there is no verdict: probability 0.
        spread: standard deviation of the paired differences, in points.
        difference: the true difference, in points.
        family: number of tests m; Holm's method allows at least the level `ALPHA / m`.
        look: the look whose test it is.
    """
    enough = np.asarray(seeds) >= min_seeds(family)
    seeds = np.maximum(np.asarray(seeds, float), 2)
    shift = np.minimum(difference / max(spread, NO_SPREAD) * np.sqrt(seeds), 1e3)
    limit = stats.t.isf(level(look, ALPHA / family) / 2, seeds - 1)
    # scipy's noncentral t loses precision for large shifts, where the probability is 1
    certain = shift > 30 + 30 * limit
    chance = stats.nct.sf(limit, seeds - 1, np.where(certain, 1.0, shift))
    return enough * np.where(certain, 1.0, np.nan_to_num(chance, nan=1.0))


def seeds_needed(spread: float, difference: float = 1.0, family: int = 1) -> int | None:
    """The fewest seeds that find a true difference with a power of 80%; None: more than 1000."""
    candidates = np.arange(MIN_SEEDS, MAX_SEEDS + 1)
    enough = power(candidates, spread, difference, family) >= POWER
    return int(candidates[np.argmax(enough)]) if enough.any() else None


def spread_interval(spread: float, seeds: int) -> Interval:
    """95% interval of the true standard deviation (chi-square)."""
    degrees = seeds - 1
    low, high = stats.chi2.ppf((1 - ALPHA / 2, ALPHA / 2), degrees)
    return Interval(spread * math.sqrt(degrees / low), spread * math.sqrt(degrees / high))


def combine_intervals(mean: float, seeds: Interval, images: Interval) -> Interval:
    """95% interval of the mean difference for new seeds and new images (Zou and Donner).

    The squared distances from the mean to the ends of both intervals are added, so it is wider than
    either. The interaction of seeds and images is part of both, so it tends to be too wide rather
    than too narrow.

    Args:
        mean: the mean difference.
        seeds: its 95% interval over seeds.
        images: its 95% interval over test images.
    """
    low = math.hypot(mean - seeds.low, max(mean - images.low, 0.0))
    high = math.hypot(seeds.high - mean, max(images.high - mean, 0.0))
    return Interval(mean - low, mean + high)


def _hedges(mean: float, spread: float, seeds: int) -> float:
    """d_z = mean / spread, times Hedges' exact correction, which is zero for two seeds."""
    if seeds < 3 or spread <= NO_SPREAD:
        return math.nan
    half = (seeds - 1) / 2
    bias = math.exp(special.gammaln(half) - special.gammaln(half - 0.5)) / math.sqrt(half)
    return bias * mean / spread


def _sign_flip(differences: np.ndarray) -> float:
    """p of the mean under all sign flips; with 14 or more seeds, under 9999 random ones."""
    exact = len(differences) <= EXACT_SEEDS
    result = stats.permutation_test(
        (differences,),
        lambda values, axis: np.mean(values, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=2 ** len(differences) if exact else 9999,
        rng=np.random.default_rng(0),
    )
    return float(result.pvalue)
