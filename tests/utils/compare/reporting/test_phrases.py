"""Sentences say what was measured; notes, what makes it weaker."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from tests.utils.compare.example_scores import NONE, analyze_again
from utils.compare.analysis.comparison import Comparison, PairSummary
from utils.compare.planning.plan import Plan
from utils.compare.planning.record import make_entry
from utils.compare.reporting.phrases import notes, sentence, signed
from utils.compare.reporting.report import render_html, render_markdown
from utils.compare.statistics import paired
from utils.compare.statistics.paired import Interval
from utils.core.config import update_config


def pair(mean: float, spread: float, finished: tuple[Plan, Comparison]) -> PairSummary:
    """A pair of five seeds with these differences."""
    values = mean + spread * scipy.stats.zscore(np.arange(5), ddof=1)
    ap = paired.paired_difference(values)
    return replace(finished[1].pairs[0], ap=ap, corrected_p=ap.p)


def test_the_sentence_says_what_was_measured(finished: tuple[Plan, Comparison]):
    clear = replace(pair(2.0, 0.3, finished), verdict="better", combined=Interval(1.0, 3.0))
    assert sentence(clear) == (
        "se is better than none by 2.00 AP (on 2 of 2 seeds). 95% interval for new seeds and new"
        " images +1.00 to +3.00, for new seeds on these images +1.63 to +2.37; corrected p < 0.001."
    )
    text = sentence(replace(clear, combined=Interval(-1.0, 5.0)))
    assert "on others it may not" in text and "−1.00 to +5.00" in text
    vague = replace(pair(0.1, 2.0, finished), needed=34, needed_range=(13, None))
    text = sentence(vague)
    assert f"{paired.NO_DIFFERENCE} (+0.10 AP" in text
    assert (
        "34 seeds would be needed (13 to more than 1000, as 5 seeds do not determine the spread"
        " more precisely)" in text
    )
    text = sentence(replace(vague, needed=3, needed_range=(3, 3)))
    assert text.endswith("3 seeds would be needed.")


@pytest.mark.parametrize(
    ("ap", "combined", "words"),
    [
        (
            [30.1, 30.2, 29.9, 30.2, 29.7, 30.3],
            Interval(-0.5, 0.6),
            "se and none are practically equal: they differ by less than 1 AP (+0.02 AP on 6 of 6"
            " seeds).|That holds on new images, too",
        ),
        (
            [30.1, 30.2, 29.9, 30.2, 29.7, 30.3],
            Interval(-0.5, 1.2),
            "se and none are practically equal|on others the difference may be larger",
        ),
        (
            [30.4, 30.8, 30.2, 30.6, 30.3, 30.7],
            Interval(0.1, 0.8),
            "se is better than none by 0.45 AP, but by less than the margin of 1 AP",
        ),
        (
            [32.4, 30.0, 28.2, 33.6, 30.3, 30.7],
            Interval(-2.0, 3.0),
            "se against none: undecided (+0.82 AP|seeds would be needed",
        ),
    ],
)
def test_four_verdicts_with_a_margin(
    ap: list[float], combined: Interval, words: str, scored: Callable[..., Comparison]
):
    comparison = scored(margin=1.0, none=NONE, se=ap)
    text = sentence(replace(comparison.pairs[0], combined=combined))
    assert all(part in text for part in words.split("|"))
    page = render_html(comparison, "command")
    assert "a margin of 1 AP was declared" in page and ">corrected p of 1 AP</a>" in page


def test_what_makes_a_pairing_partial_is_noted(scored: Callable):
    comparison = scored(none=NONE, se=NONE)
    assert notes(comparison) == []
    none, se = comparison.plan.settings
    changes = {"phi": "se", "augment.mosaic": 0.0, "eval.nms_iou": 0.7, "train.lr": 0.1}
    se = replace(se, config=update_config(se.config, changes))
    plan = replace(comparison.plan, settings=(none, se))
    (note,) = notes(replace(comparison, plan=plan))
    assert note.startswith("se differs from none in augment.mosaic, eval.nms_iou: ")


def test_equality_of_networks_that_learned_nothing_is_noted(scored: Callable):
    little = [value / 100 for value in NONE]
    (note,) = notes(scored(margin=1.0, none=little, se=little))
    assert note.startswith("The margin of 1 AP is large against the AP reached, 0.30: ")
    assert notes(scored(margin=1.0, none=NONE, se=NONE)) == []


def test_an_ap_that_still_rises_is_noted(scored: Callable):
    comparison = scored(none=NONE, se=NONE)
    curve = [{"epoch": epoch, "map50_95": 0.05 * epoch} for epoch in range(1, 13)]
    results = dict(comparison.results)
    results["se", 2] = replace(results["se", 2], curve=curve)
    (note,) = notes(analyze_again(comparison, results.values()))
    assert note.startswith("AP was still rising at the last epoch in trainings of se (1 of 6)")


def test_a_second_look_is_noted(scored: Callable):
    first = scored(none=NONE[:5], se=NONE[:5])
    second = scored([make_entry("look", first.plan, first.tests)], none=NONE, se=NONE)
    assert notes(second)[0].startswith("This is look 2 at results in this folder. The correction")
    assert "look 2" in render_markdown(second, "command").splitlines()[2]


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.314, 2, "+0.31"),
        (-1.2, 2, "−1.20"),
        (-0.004, 2, "+0.00"),
        (-0.4, 0, "+0"),
        (math.nan, 2, "–"),
    ],
)
def test_a_difference_has_a_sign_but_zero_is_not_negative(value: float, digits: int, text: str):
    assert signed(value, digits) == text
