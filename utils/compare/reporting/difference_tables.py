"""Tables of the differences between settings: verdicts, looks, power, AP50, classes."""

from collections.abc import Callable

from utils.compare.analysis.comparison import Comparison, PairSummary
from utils.compare.reporting.phrases import (
    NONE,
    interval,
    look_count,
    looks_sentence,
    number,
    percent,
    probability,
    seed_count,
    signed,
)
from utils.compare.reporting.table import ReportTable, make_table
from utils.compare.statistics.group_sequential import Look, level
from utils.compare.statistics.paired import (
    ALPHA,
    NO_DIFFERENCE,
    NO_VERDICT,
    PairedDifference,
    Verdict,
    min_seeds,
)


def pairs_table(comparison: Comparison) -> ReportTable:
    """The differences in AP, their intervals and verdicts."""
    equivalence: dict[str, Callable[[PairSummary], str]] = {}
    look: dict[str, Callable[[PairSummary], str]] = {}
    if comparison.plan.looks:
        look["look"] = look_count
    if comparison.plan.margin is not None:
        column = equivalence_column(comparison.plan.margin)
        equivalence[column] = lambda pair: probability(pair.equivalence_p)
    return make_table(
        "Differences",
        "Setting minus reference on the same seeds, AP in points; trials that diverged count as 0."
        " Each interval holds by itself in 95% of cases; they are not simultaneous.",
        comparison.pairs,
        {
            "setting – reference": pair_name,
            "verdict": lambda pair: short_verdict(pair.verdict),
            **look,
            "seeds": lambda pair: f"{pair.survivors.seeds} of {pair.planned}",
            "AP": lambda pair: number(pair.means[0]),
            "reference's AP": lambda pair: number(pair.means[1]),
            "AP difference": lambda pair: signed(pair.ap.mean),
            "95% seeds and images": lambda pair: interval(pair.combined),
            "95% over seeds": lambda pair: interval(pair.ap.interval),
            "95% over images": lambda pair: interval(pair.images),
            "p": lambda pair: probability(pair.ap.p),
            "corrected p": lambda pair: probability(pair.corrected_p),
            **equivalence,
        },
        mark=lambda pair: pair.verdict.split()[0],
    )


def looks_table(comparison: Comparison) -> ReportTable:
    """The declared looks: those that were, and those that are left."""
    plan, family = comparison.plan, comparison.family

    def levels(position: int) -> str:
        if plan.looks[position] < min_seeds(family):
            return NONE
        look = Look(plan.looks, position)
        return f"{level(look, ALPHA / family):.2g} to {level(look, ALPHA):.2g}"

    def trials(seeds: int) -> str:
        if seeds > len(plan.seeds):
            return NONE
        return str(sum(min(seeds, len(plan.seeds_of(each.name))) for each in plan.settings))

    def undecided(seeds: int) -> str:
        if seeds > len(plan.seeds):
            return NONE
        decided = [pair for pair in comparison.pairs if pair.verdict not in NO_VERDICT]
        count = sum(pair.planned <= seeds for pair in decided)
        return f"{len(plan.pairs) - count} of {len(plan.pairs)}"

    rows = []
    for position, seeds in enumerate(plan.looks):
        row = [str(position + 1), str(seeds), levels(position), trials(seeds), undecided(seeds)]
        rows.append(row)
    return ReportTable(
        "Looks",
        f"{looks_sentence(comparison)} A comparison has a verdict if its p is at most the level:"
        " the first number for the smallest p of all, the second for the last comparison left.",
        ["look", "seeds", "level of p", "trials", "without a verdict"],
        rows,
        [""] * len(rows),
    )


def power_table(comparison: Comparison) -> ReportTable:
    """How large a difference these runs could show."""

    def needed(pair: PairSummary) -> str:
        low, high = pair.needed_range
        if percent(pair.power) == NONE:
            return NONE
        return f"{seed_count(pair.needed)} ({seed_count(low)} to {seed_count(high)})"

    return make_table(
        "What these runs could show",
        "For the AP differences.",
        comparison.pairs,
        {
            "setting – reference": pair_name,
            "spread between seeds": lambda pair: number(pair.ap.spread),
            "effect g": lambda pair: signed(pair.ap.effect),
            "sign-flip p": lambda pair: probability(pair.ap.sign_p),
            "smallest possible p": lambda pair: probability(pair.ap.sign_floor),
            "power for 1 AP": lambda pair: percent(pair.power),
            "seeds needed for 1 AP": needed,
        },
    )


def ap50_table(comparison: Comparison) -> ReportTable:
    """The differences in AP50."""
    return make_table(
        "Differences of AP50",
        "In points, without a verdict.",
        comparison.pairs,
        {
            "setting – reference": pair_name,
            "AP50 difference": lambda pair: signed(pair.ap50.mean),
            "95% over seeds": lambda pair: interval(pair.ap50.interval),
            "95% over images": lambda pair: interval(pair.images50),
        },
    )


def class_differences_table(comparison: Comparison) -> ReportTable:
    """The differences in AP of single classes."""

    def text(difference: PairedDifference) -> str:
        return f"{signed(difference.mean)} ({interval(difference.interval)})"

    rows = []
    for label in comparison.settings[0].per_class if comparison.pairs else ():
        rows.append([label, *(text(pair.per_class[label]) for pair in comparison.pairs)])
    return ReportTable(
        "Classes, AP difference",
        "In parentheses: the 95% interval over seeds, not corrected for the number of classes.",
        ["class", *(pair_name(pair) for pair in comparison.pairs)],
        rows,
        [""] * len(rows),
    )


def pair_name(pair: PairSummary) -> str:
    """Both names of a comparison."""
    return f"{pair.name} – {pair.reference}"


def equivalence_column(margin: float) -> str:
    """Name of the column with p of a difference of at least the margin."""
    return f"corrected p of {margin:g} AP"


def short_verdict(verdict: Verdict) -> str:
    """A verdict in few words."""
    return "no difference shown" if verdict == NO_DIFFERENCE else verdict
