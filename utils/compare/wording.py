"""The plain sentences of a report."""

import math

from utils.compare import stats


def sentence(
    name: str,
    reference: str,
    pair: stats.Paired,
    verdict: stats.Verdict,
    corrected_p: float,
    combined: tuple[float, float],
    needed: int | None,
    needed_range: tuple[int | None, int | None],
) -> str:
    """What the runs say about `name` against `reference`, in one or two plain sentences.

    Args:
        pair: AP differences over seeds, points. combined: interval for new seeds and new test images.
        needed, needed_range: see `analysis.Pair`.
    """
    if verdict != "no difference that these runs can show":
        return (
            f"{name} is {verdict} than {reference} by {abs(pair.mean):.2f} AP "
            f"(95% interval over seeds {interval(pair.low, pair.high)}, corrected p {probability(corrected_p)})."
            f"{_other_images(combined)}"
        )
    found = f"{name} against {reference}: {verdict} ({signed(pair.mean)} AP"
    found += (
        f", 95% interval over seeds {interval(pair.low, pair.high)})."
        if pair.seeds > 1
        else ", one seed)."
    )
    return f"{found} {_outlook(pair, needed, needed_range)}"


def _other_images(combined: tuple[float, float]) -> str:
    if not combined[0] <= 0 <= combined[1]:
        return ""
    return (
        f" That holds for these test images; on other ones it may not: the interval for new seeds and new images, "
        f"{interval(*combined)}, contains zero."
    )


def _outlook(
    pair: stats.Paired, needed: int | None, needed_range: tuple[int | None, int | None]
) -> str:
    if pair.seeds < 2:
        return "One seed has no spread: nothing can be said about the next one."
    if pair.spread <= stats.NO_SPREAD:
        return "All seeds differ by exactly the same, so they are no independent repetitions."
    short = f"With {pair.seeds} seeds no verdict is given ({stats.MIN_SEEDS} at least). "
    return (
        f"{short if pair.seeds < stats.MIN_SEEDS else ''}To see a difference of 1 AP in four of five comparisons, "
        f"{seeds_text(needed)} seeds would be needed ({seeds_text(needed_range[0])} to {seeds_text(needed_range[1])}, "
        f"as {pair.seeds} seeds tell the spread no better)."
    )


def seeds_text(count: int | None) -> str:
    return f"more than {stats.MOST_SEEDS}" if count is None else str(count)


def signed(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:+.2f}".replace("-", "−")


def interval(low: float, high: float) -> str:
    return "–" if math.isnan(low) or math.isnan(high) else f"{signed(low)} to {signed(high)}"


def probability(value: float) -> str:
    return "–" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
