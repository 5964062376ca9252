"""Numbers and findings of a report in words."""

import math
from statistics import median

from utils.compare.analysis import PairSummary, Spread
from utils.compare.failures import FailureKind
from utils.compare.statistics import MAX_SEEDS, NO_DIFFERENCE, NO_SPREAD, Interval

NONE = "–"
CAUSES: dict[FailureKind, str] = {
    "diverged": "diverged",
    "infrastructure": "the machine",
    "error": "an error",
}


def sentence(pair: PairSummary) -> str:
    """Describe the result for a setting and its reference in a few sentences."""
    seeds_interval = f"95% interval over seeds {interval(pair.ap.interval)}"
    seeds = f"on {pair.survivors.seeds} of {pair.planned} seeds"
    if pair.verdict != NO_DIFFERENCE:
        difference = f"{abs(pair.ap.mean):.2f} AP"
        corrected = f"corrected p {probability(pair.corrected_p)}"
        return (
            f"{pair.name} is {pair.verdict} than {pair.reference} by {difference} {seeds}"
            f" ({seeds_interval}, {corrected}).{_failures(pair)}{_other_images(pair.combined)}"
        )
    certainty = seeds_interval if pair.ap.seeds > 1 else "one seed"
    return (
        f"{pair.name} against {pair.reference}: {pair.verdict} ({signed(pair.ap.mean)} AP {seeds},"
        f" {certainty}).{_failures(pair)} {_outlook(pair)}"
    )


def _failures(pair: PairSummary) -> str:
    """How many trials diverged or failed, and what the others say alone."""
    text = ""
    for name, count in zip((pair.name, pair.reference), pair.diverged, strict=True):
        if count:
            text += f" {name} diverged on {count} of {pair.planned} seeds (scored 0)."
    if text and pair.survivors.seeds:
        text += (
            f" The {pair.survivors.seeds} seeds that both finished differ by"
            f" {signed(pair.survivors.mean)} AP; that is no verdict, as they are selected."
        )
    if pair.outliers:
        shown = ", ".join(f"seed {seed} ({signed(far)})" for seed, far in pair.outliers.items())
        middle = signed(median(pair.differences.values()))
        text += f" Outliers: {shown}, far from the median difference of {middle} AP."
    if pair.errors:
        text += (
            f" No verdict while {pair.errors} of its trials failed with an error: mend it and run"
            " the command again."
        )
    return text


def _other_images(combined: Interval) -> str:
    if not combined.low <= 0 <= combined.high:
        return ""
    return (
        " That holds for these test images; on others it may not: the interval for new seeds and"
        f" new images, {interval(combined)}, contains zero."
    )


def _outlook(pair: PairSummary) -> str:
    seeds = pair.ap.seeds
    if seeds < 2:
        return "One seed has no spread: nothing can be said about the next one."
    if pair.ap.spread <= NO_SPREAD:
        return "All seeds differ by exactly the same amount, so they do not repeat independently."
    no_verdict = ""
    if seeds < pair.min_seeds:
        no_verdict = f"With {seeds} seeds there is no verdict (at least {pair.min_seeds}). "
    low, high = pair.needed_range
    span = ""
    if low != high:
        span = (
            f" ({seed_count(low)} to {seed_count(high)}, as {seeds} seeds do not determine the"
            " spread more precisely)"
        )
    return (
        f"{no_verdict}To see a difference of 1 AP in four of five comparisons,"
        f" {seed_count(pair.needed)} seeds would be needed{span}."
    )


def seed_count(count: int | None) -> str:
    """A number of seeds; None means more than `MAX_SEEDS`."""
    return f"more than {MAX_SEEDS}" if count is None else str(count)


def number(value: float, digits: int = 2) -> str:
    """A number with a fixed number of digits."""
    return NONE if math.isnan(value) else f"{value:.{digits}f}"


def signed(value: float) -> str:
    """A difference: `+0.31`, `−1.20`."""
    return NONE if math.isnan(value) else f"{value:+.2f}".replace("-", "−")


def spread(value: Spread) -> str:
    """`41.20 ± 0.35`."""
    deviation = "" if math.isnan(value.deviation) else f" ± {value.deviation:.2f}"
    return NONE if math.isnan(value.mean) else f"{value.mean:.2f}{deviation}"


def percent(value: float) -> str:
    """A fraction as `80 %`."""
    return NONE if math.isnan(value) else f"{100 * value:.0f} %"


def interval(ends: Interval) -> str:
    """`−0.63 to +0.77`."""
    if math.isnan(ends.low) or math.isnan(ends.high):
        return NONE
    return f"{signed(ends.low)} to {signed(ends.high)}"


def probability(value: float) -> str:
    """A p value."""
    if math.isnan(value):
        return NONE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
