"""Statistics of paired scores: against scipy and hand computations, and their calibration on simulated scores."""

import math
import runpy
import sys

import numpy as np
import pytest
import scipy.stats

from utils.compare.stats import (
    ALPHA,
    MIN_SEEDS,
    combined_interval,
    holm,
    paired,
    power,
    seeds_needed,
    sign_floor,
    spread_range,
    t_test,
    verdicts,
)
from utils.compare.stats import __file__ as stats_file
from utils.core.errors import UserError

NONE = "no difference that these runs can show"
TRIALS = 20_000
NOISE = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "heavy": lambda rng, shape: rng.standard_t(3, shape),
    "skewed": lambda rng, shape: rng.lognormal(0, 1, shape),
    "uniform": lambda rng, shape: rng.random(shape),
    "collapsing": lambda rng, shape: rng.normal(size=shape) - 10 * (rng.random(shape) < 0.1),
    "two lumps": lambda rng, shape: rng.normal(size=shape) - 10 * (rng.random(shape) < 0.5),
}


def scores(rng, settings, seeds, noise="normal", trials=TRIALS):
    """Differences `(trials, settings, seeds)` to a common baseline; the seed moves all of them together, too."""
    seed = 2 * rng.normal(size=(trials, 1, seeds))
    own = seed + NOISE[noise](rng, (trials, settings, seeds))
    return own - (seed + NOISE[noise](rng, (trials, 1, seeds)))


def limit(rate, trials=TRIALS):
    """`rate` and four standard errors of a simulated share."""
    return rate + 4 * math.sqrt(rate * (1 - rate) / trials)


# calibration


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("seeds", [3, 5, 6])
def test_without_a_true_difference_at_most_5_percent_are_claimed(noise, seeds):
    p = t_test(scores(np.random.default_rng(0), 1, seeds, noise))[:, 0]
    claimed = np.mean(p <= ALPHA)
    assert claimed <= limit(
        0.054 if noise == "uniform" else ALPHA
    )  # 5.3% is the t test's own for uniform noise
    if noise == "normal":
        assert claimed >= 0.05 - (limit(0.05) - 0.05)


@pytest.mark.parametrize("seeds", [3, 6])
def test_of_several_settings_at_most_5_percent_of_reports_claim_one(seeds):
    p = t_test(scores(np.random.default_rng(1), 4, seeds))
    uncorrected, corrected = np.mean((p <= ALPHA).any(1)), np.mean((holm(p) <= ALPHA).any(1))
    assert uncorrected > 0.08  # what the correction is for
    assert 0.02 < corrected <= limit(ALPHA)


def test_the_verdict_itself_is_calibrated():
    """The function that the report calls, on whole reports of three settings, four seeds."""
    trials = 1500
    data = scores(np.random.default_rng(2), 3, 4, trials=trials)
    claims = [
        any(word != NONE for _, word in verdicts([paired(row) for row in report]))
        for report in data
    ]
    assert 0 < np.mean(claims) <= limit(ALPHA, trials)


@pytest.mark.parametrize(
    ("seeds", "difference", "settings"), [(3, 5.0, 1), (6, 2.0, 1), (10, 1.5, 1), (6, 3.0, 4)]
)
def test_a_true_difference_is_found_as_often_as_the_report_says(seeds, difference, settings):
    rng, spread = np.random.default_rng(3), math.sqrt(2)  # of the difference of two normal scores
    data = scores(rng, settings, seeds) + difference * np.eye(settings)[0][:, None]
    found = (holm(t_test(data))[:, 0] <= ALPHA) & (data[:, 0].mean(1) > 0)
    told = float(power(seeds, spread, difference, ALPHA / settings))
    assert 0.1 < told < 0.99
    error = 4 * math.sqrt(told * (1 - told) / TRIALS)
    assert (
        told - error <= found.mean() <= told + error + (0.02 if settings > 1 else 0)
    )  # Holm gives a little more


def test_intervals_over_seeds_hold_the_truth_in_95_percent():
    data = scores(np.random.default_rng(4), 1, 3, trials=3000)[:, 0] + 1.5
    inside = [one.low <= 1.5 <= one.high for one in map(paired, data)]
    assert abs(np.mean(inside) - 0.95) < 4 * math.sqrt(0.05 * 0.95 / 3000)


def test_the_combined_interval_holds_the_truth_for_new_seeds_and_new_images():
    rng, trials, seeds, seed_spread, image_error, inside = (
        np.random.default_rng(5),
        3000,
        3,
        1.0,
        0.8,
        0,
    )
    alone = 0
    for _ in range(trials):
        one = paired(2.0 + image_error * rng.normal() + seed_spread * rng.normal(size=seeds))
        low, high = combined_interval(
            one, (one.mean - 1.96 * image_error, one.mean + 1.96 * image_error)
        )
        inside += low <= 2.0 <= high
        alone += one.low <= 2.0 <= one.high
    assert inside / trials >= 0.95 - 4 * math.sqrt(0.05 * 0.95 / trials)
    assert alone / trials < 0.92  # the interval over seeds does not know the images


def test_without_scipy_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(UserError, match=r"need scipy.*: pip install -r requirements-compare.txt"):
        runpy.run_path(stats_file)


# against scipy and by hand


def test_the_paired_t_test_is_scipys():
    ours, theirs = (
        np.array([41.2, 43.0, 42.1, 44.4, 42.9]),
        np.array([40.8, 41.9, 42.3, 43.1, 41.6]),
    )
    one, reference = paired(ours - theirs), scipy.stats.ttest_rel(ours, theirs)
    interval = reference.confidence_interval(0.95)
    assert one.p == pytest.approx(reference.pvalue)
    assert (one.low, one.high) == pytest.approx((interval.low, interval.high))
    assert one.mean == pytest.approx(0.78) and one.spread == pytest.approx(
        np.std(ours - theirs, ddof=1)
    )


def test_three_seeds_by_hand():
    """0.3, 0.5, 0.1: mean 0.3, s 0.2, t = 0.3 / (0.2 / sqrt 3), t(0.975, 2) = 4.3027, Hedges' factor 0.5642 = J(2)."""
    one = paired(np.array([0.3, 0.5, 0.1]))
    assert (one.low, one.high) == pytest.approx((0.3 - 0.4968, 0.3 + 0.4968), abs=1e-4)
    assert one.effect == pytest.approx(1.5 * 0.5642, abs=1e-4)
    assert one.sign_p == 0.25 == one.sign_floor


def test_holm_by_hand():
    assert holm(np.array([0.01, 0.04, 0.03])) == pytest.approx([0.03, 0.06, 0.06])
    assert holm(np.array([0.5, 0.9, 0.001, 0.02])) == pytest.approx([1.0, 1.0, 0.004, 0.06])
    assert holm(np.array([[0.2], [0.01]])).tolist() == [[0.2], [0.01]]
    assert holm(np.array([])).size == 0


@pytest.mark.parametrize(("seeds", "least"), [(1, 1.0), (3, 0.25), (5, 0.0625), (6, 0.03125)])
def test_the_sign_flip_test_knows_its_least_p(seeds, least):
    assert sign_floor(seeds) == least
    if seeds > 1:
        assert paired(np.arange(1.0, seeds + 1)).sign_p == least


def test_the_sign_flip_test_counts_all_patterns():
    """1, 2, -1: of the 8 sums of +-1 +-2 +-1, those at least 2 away from 0: +-4, and +-2 twice each."""
    assert paired(np.array([1.0, 2.0, -1.0])).sign_p == 0.75


def test_too_few_seeds_get_no_verdict():
    pairs = [paired(np.array(values)) for values in ([5.0], [5.0, 5.01], [5.0, 5.01, 5.02])]
    found = verdicts(pairs)
    assert [word for _, word in found] == [NONE, NONE, "better"]
    assert math.isnan(found[0][0]) and math.isnan(found[1][0])
    assert found[2][0] == pytest.approx(pairs[2].p)  # only judged pairs make the family
    assert power(MIN_SEEDS - 1, 0.01) == 0


def test_worse_is_told_apart_from_better():
    better, worse = np.array([2.0, 2.1, 1.9]), np.array([-2.0, -2.1, -1.9])
    assert [word for _, word in verdicts([paired(better), paired(worse)])] == ["better", "worse"]


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_seeds_that_repeat_one_run_show_nothing(value):
    one = paired(np.full(4, value))
    assert one.p == 1 and math.isnan(one.effect) and verdicts([one])[0][1] == NONE


def test_seeds_needed_is_the_first_number_with_80_percent():
    for spread in (0.3, 1.0, 2.7):
        needed = seeds_needed(spread)
        assert power(needed, spread) >= 0.8 and (
            needed == MIN_SEEDS or power(needed - 1, spread) < 0.8
        )
    assert seeds_needed(1.0) == 10  # the textbooks' number for d_z = 1
    assert seeds_needed(1.0, alpha=0.05 / 3) > 10
    assert seeds_needed(40.0) is None


def test_power_does_not_break_at_the_ends():
    chances = power(np.array([2, 3, 4, 50, 1000]), 1e-12)
    assert chances.tolist() == [0, 1, 1, 1, 1]
    assert (
        0.0249 < float(power(5, 1e6)) < 0.0251
    )  # no difference in sight: half of 5%, the right direction


def test_the_spread_of_few_seeds_is_known_roughly():
    low, high = spread_range(1.0, 3)
    assert (low, high) == pytest.approx((0.5207, 6.2847), abs=1e-3)
    drawn = np.std(np.random.default_rng(0).normal(size=(4000, 3)), axis=1, ddof=1)
    covered = np.mean((drawn * low <= 1) & (drawn * high >= 1))
    assert abs(covered - 0.95) < 4 * math.sqrt(0.05 * 0.95 / 4000)


def test_the_combined_interval_is_wider_than_both():
    one = paired(np.array([0.3, 0.5, 0.1]))
    low, high = combined_interval(one, (-0.1, 0.9))
    assert one.mean - low == pytest.approx(math.hypot(one.mean - one.low, 0.4))
    assert high - one.mean == pytest.approx(math.hypot(one.high - one.mean, 0.6))
