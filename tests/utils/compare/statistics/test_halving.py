"""Halving on scores that are known, and the search's errors by simulation."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from utils.compare.simulation import search_once
from utils.compare.statistics.halving import Gains, Rung, halve, main_effects, make_rungs
from utils.compare.statistics.paired import ALPHA
from utils.core.errors import UserError


@pytest.mark.parametrize(
    ("candidates", "budget", "finalists"),
    [(325, 650, 3), (64, 200, 3), (64, 64, 3), (6, 10, 2), (4, 21, 2), (3, 100, 3), (1, 1, 3)],
)
def test_rungs_take_half_and_the_whole_budget(candidates: int, budget: int, finalists: int):
    rungs = make_rungs(candidates, budget, finalists)
    sizes = [rung.candidates for rung in rungs]
    assert sizes[0] == candidates and rungs[0].seeds[0] == 0
    assert all(2 * later <= earlier + 1 for earlier, later in pairwise(sizes))
    assert all(size > finalists for size in sizes[1:])
    seeds = [seed for rung in rungs for seed in rung.seeds]
    assert seeds == list(range(len(seeds))), "no seed twice"
    trials = sum(rung.candidates * len(rung.seeds) for rung in rungs)
    assert budget - sizes[-1] < trials <= budget


def test_a_budget_below_one_trial_each_is_refused():
    with pytest.raises(UserError, match=r"--budget 9: there are 10 candidates"):
        make_rungs(10, 9, 3)


def test_later_rungs_stand_first_and_failures_are_left_out():
    trained: list[tuple[list[str], list[int]]] = []
    first = {"a": 1.0, "b": 4.0, "c": 3.0, "d": 2.0, "e": 0.0}  # b is lucky once

    def run(names: Sequence[str], seeds: Sequence[int]) -> Gains:
        trained.append((list(names), list(seeds)))
        (seed,) = seeds
        return {name: {seed: first[name] - 13 * seed} for name in names if name != "d"}

    gains = halve(list(first), [Rung(5, (0,)), Rung(3, (1,))], run)
    assert trained == [(["a", "b", "c", "d", "e"], [0]), (["b", "c", "a"], [1])]
    assert list(gains) == ["b", "c", "a", "e"] and gains["b"] == {0: 4.0, 1: -9.0}


def test_main_effects_of_a_sum_are_its_parts():
    blocks, sites, seeds = {"se": 2.0, "eca": -1.0, "gc": -1.0}, {"x": 0.5, "y": -0.5}, (7.0, -3.0)
    gains: Gains = {}
    parts = {}
    for block, own in blocks.items():
        for site, other in sites.items():
            name = f"{block} at {site}"
            parts[name] = block, site
            count = 1 if block == "gc" else 2  # not all reach the second rung
            gains[name] = {seed: own + other + seeds[seed] for seed in range(count)}
    found_blocks, found_sites = main_effects(gains, parts)
    assert found_blocks == pytest.approx(blocks) and next(iter(found_blocks)) == "se"
    assert found_sites == pytest.approx(sites) and list(found_sites) == ["x", "y"]


def test_a_search_among_equals_claims_no_more_than_one_comparison_may():
    rng = np.random.default_rng(0)
    claimed = [search_once(rng, np.zeros(24), noise=1.0, budget=48)[1] for _ in range(1000)]
    # one-sided: half of the false claims of a family are "better"; three standard errors above
    assert np.mean(claimed) <= ALPHA / 2 + 3 * np.sqrt(ALPHA / 2 / 1000)


def test_a_search_finds_one_of_the_few_that_are_better():
    rng = np.random.default_rng(0)
    truth = np.where(np.arange(325) % 40 == 7, 1.0, 0.0)
    assert truth.sum() == 8
    chosen = [search_once(rng, truth, noise=1.0, budget=650)[0] for _ in range(60)]
    assert np.mean(chosen) >= 0.9
