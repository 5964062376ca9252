"""Levels of looks: against raw noise, against the multivariate normal distribution, by hand."""

import math

import numpy as np
import pytest
import scipy.stats

from utils.compare.simulation import LOOKS, NOISE, draw_differences, look_by_look, sequential_error
from utils.compare.statistics.group_sequential import ONLY_LOOK, Look, level, repeated_p
from utils.compare.statistics.paired import (
    ALPHA,
    NO_VERDICT,
    holm,
    judge,
    paired_difference,
    t_test,
)

DRAWS = 40_000


def levels(schedule: tuple[int, ...], alpha: float) -> list[float]:
    """The level of every look."""
    return [level(Look(schedule, position), alpha) for position in range(len(schedule))]


def test_levels_of_five_looks():
    """Simulated once, 4 million times, by SciPy's t test of 20 normal numbers."""
    found = levels(LOOKS, 0.05)
    assert found[0] == pytest.approx(0.05 * (3 / 20) ** 2, rel=1e-6)
    assert found == pytest.approx([0.001125, 0.00207, 0.00521, 0.01198, 0.0383], rel=0.02)


@pytest.mark.parametrize("alpha", [0.5, 0.05])
def test_every_look_spends_its_share(alpha: float):
    """Of raw normal noise, the looks end s^2 - (s before)^2 of `alpha`, s the share of seeds."""
    noise = np.random.default_rng(5).normal(size=(DRAWS, LOOKS[-1]))
    is_open = np.ones(DRAWS, bool)
    spent = 0.0
    for seeds, limit in zip(LOOKS, levels(LOOKS, alpha), strict=True):
        p = scipy.stats.ttest_1samp(noise[:, :seeds], 0, axis=1).pvalue
        ended = np.mean(is_open & (p <= limit))
        expected = alpha * (seeds / LOOKS[-1]) ** 2 - spent
        assert abs(ended - expected) < 4 * math.sqrt(expected / DRAWS)
        is_open &= p > limit
        spent += expected


def test_many_seeds_have_the_levels_of_normal_sums():
    """The chance to stay inside all limits is an integral of the normal distribution."""
    schedule = (2000, 4000, 6000)
    share = np.sqrt(np.minimum.outer(schedule, schedule) / np.maximum.outer(schedule, schedule))
    for alpha in (0.05, 0.05 / 24):
        z = scipy.stats.norm.isf(np.array(levels(schedule, alpha)) / 2)
        for count in (2, 3):
            normal = scipy.stats.multivariate_normal(cov=share[:count, :count])
            inside = normal.cdf(z[:count], lower_limit=-z[:count])
            expected = alpha * (schedule[count - 1] / schedule[-1]) ** 2
            assert 1 - inside == pytest.approx(expected, rel=0.02, abs=1e-5)


def test_a_repeated_p_is_the_alpha_of_its_level():
    for position in range(len(LOOKS)):
        look = Look(LOOKS, position)
        for alpha in (0.05, 0.05 / 3, 0.001):
            assert repeated_p(level(look, alpha), look) == pytest.approx(alpha)
        p = np.geomspace(1e-12, 1, 50)
        found = repeated_p(p, look)
        assert (np.diff(found) >= 0).all() and (found >= np.maximum(p, 1e-5) * 0.999).all()
    assert repeated_p(0.03, ONLY_LOOK) == 0.03 == level(ONLY_LOOK, 0.03)
    assert repeated_p(0.03, Look((6,), 0)) == pytest.approx(0.03)


@pytest.mark.parametrize("settings", [1, 4])
def test_of_several_looks_and_settings_about_5_percent_claim_a_difference(settings: int):
    draws = 2000
    for noise in NOISE:
        error = sequential_error(noise, settings, draws=draws)
        # single comparisons: 5.4% for uniform noise, 5.5% if every second run collapses
        assert error <= 0.055 + 4 * math.sqrt(0.055 / draws)
        assert noise != "normal" or error > 0.03


def test_looks_cost_little_power_and_save_trials():
    """At a difference of 0.75 spreads, 20 fixed seeds find 88.9%."""
    differences = draw_differences(np.random.default_rng(0), 1, 20, draws=8000)
    outcome = look_by_look(differences + 0.75 * math.sqrt(2))
    assert outcome.claimed.mean() == pytest.approx(0.868, abs=0.015)
    assert outcome.seeds.mean() == pytest.approx(16.2, abs=0.3)


def test_settings_that_differ_by_the_margin_are_rarely_called_equal_at_any_look():
    draws = 8000
    differences = 1 + 0.5 * np.random.default_rng(1).normal(size=(draws, 1, 20))
    outcome = look_by_look(differences, margin=1.0)
    assert outcome.equal.mean() <= 0.05 + 4 * math.sqrt(0.05 / draws)
    assert look_by_look(differences - 1, margin=1.0).equal.mean() > 0.9


def test_an_interval_excludes_zero_where_a_single_comparison_has_a_verdict():
    """So the intervals of all looks together hold in 95%: repeated confidence intervals."""
    for position, seeds in enumerate(LOOKS):
        look, shape = Look(LOOKS, position), scipy.stats.zscore(np.arange(seeds), ddof=1)
        limit = scipy.stats.t.isf(level(look, ALPHA) / 2, seeds - 1) / math.sqrt(seeds)
        for mean, claimed in ((limit * 1.01, True), (limit * 0.99, False)):
            pair = paired_difference(mean + shape, look)
            assert (pair.interval.low > 0) == claimed
            assert (judge([pair], looks=[look])[0].verdict == "better") == claimed


def test_where_some_have_a_verdict_the_others_need_less():
    """Holm's method over looks: a comparison that stopped keeps its p and frees its level."""
    looks = (5, 8)
    shape = scipy.stats.zscore(np.arange(8.0), ddof=1)
    clear = paired_difference(5 + shape[:5], Look(looks, 0))
    near = paired_difference(0.98 + shape, Look(looks, 1))
    at = [Look(looks, 0), Look(looks, 1)]
    p = [
        repeated_p(t_test(each), look)
        for each, look in ((5 + shape[:5], at[0]), (0.98 + shape, at[1]))
    ]
    assert ALPHA / 2 < p[1] <= ALPHA and p[0] <= ALPHA / 2
    judged = judge([clear, near], looks=at)
    assert [each.p for each in judged] == pytest.approx(holm(np.array(p)))
    assert [each.verdict for each in judged] == ["better", "better"]
    alone = judge([paired_difference(shape[:5], at[0]), near], looks=at)
    assert [each.verdict in NO_VERDICT for each in alone] == [True, True]


def test_equivalence_at_a_look_needs_both_sides_at_its_level():
    values = 0.3 + 0.35 * scipy.stats.zscore(np.arange(5.0), ddof=1)
    look = Look((5, 20), 0)
    side = scipy.stats.ttest_1samp(values, 1.0, alternative="less").pvalue
    (judged,) = judge([paired_difference(values, look)], margin=1.0, looks=[look])
    assert side < 0.05 and judged.equivalence_p == pytest.approx(repeated_p(2 * side, look) / 2)
    assert judged.verdict == "undecided"  # a single look would say practically equal
    assert judge([paired_difference(values)], margin=1.0)[0].verdict == "practically equal"
