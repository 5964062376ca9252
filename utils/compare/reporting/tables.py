"""The tables of a report as text, which the templates render."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from utils.compare.analysis import Comparison, PairSummary, SettingSummary
from utils.compare.reporting.phrases import (
    CAUSES,
    NONE,
    interval,
    look_count,
    looks_sentence,
    number,
    percent,
    probability,
    seed_count,
    signed,
    spread,
)
from utils.compare.statistics.group_sequential import Look, level
from utils.compare.statistics.halving import mean_gain
from utils.compare.statistics.paired import (
    ALPHA,
    NO_DIFFERENCE,
    NO_VERDICT,
    PairedDifference,
    Verdict,
    min_seeds,
)

Item = TypeVar("Item")
RANKED = 30  # rows of the ranking of a search


@dataclass(frozen=True)
class ReportTable:
    """A table with its heading.

    Attributes:
        heading: heading above the table.
        remark: a sentence on how to read it, or "".
        head: names of the columns; the first column holds names, the others numbers.
        rows: text of the cells.
        marks: CSS class of each row, or "".
        best: (row, column) of the cells in bold.
    """

    heading: str
    remark: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    marks: Sequence[str]
    best: frozenset[tuple[int, int]] = frozenset()


def report_tables(comparison: Comparison) -> list[ReportTable]:
    """Return all tables that have rows, in the report's order."""
    tables = [
        _settings_table(comparison),
        _pairs_table(comparison),
        *([_looks_table(comparison)] if comparison.plan.looks else []),
        _power_table(comparison),
        _ap50_table(comparison),
        _spread_table(comparison),
        _trials_table(comparison),
        _classes_table(comparison, "Classes, AP", 0),
        _classes_table(comparison, "Classes, AP50", 1),
        _class_differences_table(comparison),
        *_search_tables(comparison),
        _failed_table(comparison),
    ]
    return [table for table in tables if table.rows]


def make_table(
    heading: str,
    remark: str,
    items: Iterable[Item],
    columns: Mapping[str, Callable[[Item], str]],
    mark: Callable[[Item], str] = lambda item: "",
) -> ReportTable:
    """One row per item; `columns` maps a column's name to the text of its cell."""
    items = list(items)
    rows = [[text(item) for text in columns.values()] for item in items]
    return ReportTable(heading, remark, list(columns), rows, [mark(item) for item in items])


def _with_best(
    table: ReportTable, column: str, values: Sequence[float], sign: int = 1
) -> ReportTable:
    """The table with the best value of a column in bold: the largest; sign -1: the smallest."""
    row = _index_of_best([sign * value for value in values])
    cells = set() if row is None else {(row, table.head.index(column))}
    return replace(table, best=table.best | cells)


def _index_of_best(values: Sequence[float]) -> int | None:
    """Index of the largest value, NaN aside; None if it is the only one, or not unique."""
    known = [value for value in values if not math.isnan(value)]
    if len(known) < 2 or known.count(max(known)) > 1:
        return None
    return values.index(max(known))


def _known(
    items: Sequence[Item], columns: Mapping[str, Callable[[Item], str]]
) -> dict[str, Callable[[Item], str]]:
    """The columns in which something is known of any item."""
    return {
        name: text for name, text in columns.items() if any(text(item) != NONE for item in items)
    }


def _params(setting: SettingSummary, baseline: SettingSummary | None) -> str:
    if setting.params is None:
        return NONE
    more = 0
    if baseline is not None and baseline.params is not None:
        more = setting.params - baseline.params
    return f"{setting.params:,} (+{more:,})" if more > 0 else f"{setting.params:,}"


def _latency(setting: SettingSummary, baseline: SettingSummary | None) -> str:
    low, high = setting.latency_interval
    text = number(setting.latency, 1)
    if not math.isnan(low):
        text += f" ({low:.1f} to {high:.1f})"
    if baseline in (None, setting) or math.isnan(setting.latency / baseline.latency):
        return text
    return f"{text}, {100 * (setting.latency / baseline.latency - 1):+.0f} %"


def _settings_table(comparison: Comparison) -> ReportTable:
    baseline = None
    for setting in comparison.settings:
        if setting.name == comparison.plan.baseline:
            baseline = setting

    def seeds(setting: SettingSummary) -> str:
        return f"{setting.ap.count} of {len(comparison.plan.seeds_of(setting.name))}"

    settings = comparison.settings
    costs: dict[str, Callable[[SettingSummary], str]] = {
        "parameters": lambda setting: _params(setting, baseline),
        "GFLOPs": lambda setting: number(setting.gflops, 3),
        "latency, ms": lambda setting: _latency(setting, baseline),
        "training, s": lambda setting: number(setting.train_seconds, 0),
    }
    if comparison.plan.foreign:
        costs = _known(settings, costs)
    stopped = ""
    if comparison.plan.stops:
        stopped = (
            " Settings that stopped at a look have fewer seeds; the differences do not mix them."
        )
    table = make_table(
        "Settings",
        "Mean ± standard deviation over finished seeds, in points. Bold: the best number, which is"
        f" no verdict.{stopped}",
        settings,
        {
            "setting": lambda setting: setting.name,
            "seeds": seeds,
            "AP": lambda setting: spread(setting.ap),
            "AP50": lambda setting: spread(setting.ap50),
            **costs,
        },
    )
    table = _with_best(table, "AP", [each.ap.mean for each in settings])
    table = _with_best(table, "AP50", [each.ap50.mean for each in settings])
    if "latency, ms" not in costs:
        return table
    return _with_best(table, "latency, ms", [each.latency for each in settings], sign=-1)


def _pair_name(pair: PairSummary) -> str:
    return f"{pair.name} – {pair.reference}"


def equivalence_column(margin: float) -> str:
    """Name of the column with p of a difference of at least the margin."""
    return f"corrected p of {margin:g} AP"


def short_verdict(verdict: Verdict) -> str:
    """A verdict in few words."""
    return "no difference shown" if verdict == NO_DIFFERENCE else verdict


def _pairs_table(comparison: Comparison) -> ReportTable:
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
            "setting – reference": _pair_name,
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


def _looks_table(comparison: Comparison) -> ReportTable:
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


def _power_table(comparison: Comparison) -> ReportTable:
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
            "setting – reference": _pair_name,
            "spread between seeds": lambda pair: number(pair.ap.spread),
            "effect g": lambda pair: signed(pair.ap.effect),
            "sign-flip p": lambda pair: probability(pair.ap.sign_p),
            "smallest possible p": lambda pair: probability(pair.ap.sign_floor),
            "power for 1 AP": lambda pair: percent(pair.power),
            "seeds needed for 1 AP": needed,
        },
    )


def _ap50_table(comparison: Comparison) -> ReportTable:
    return make_table(
        "Differences of AP50",
        "In points, without a verdict.",
        comparison.pairs,
        {
            "setting – reference": _pair_name,
            "AP50 difference": lambda pair: signed(pair.ap50.mean),
            "95% over seeds": lambda pair: interval(pair.ap50.interval),
            "95% over images": lambda pair: interval(pair.images50),
        },
    )


def _spread_table(comparison: Comparison) -> ReportTable:
    return make_table(
        "Spread between seeds and between test images",
        "Between seeds: standard deviation of one training. Test images: standard error of the mean"
        " over seeds.",
        comparison.settings,
        {
            "setting": lambda setting: setting.name,
            "AP, between seeds": lambda setting: number(setting.ap.deviation),
            "AP, test images": lambda setting: number(setting.ap_image_error),
            "AP50, between seeds": lambda setting: number(setting.ap50.deviation),
            "AP50, test images": lambda setting: number(setting.ap50_image_error),
        },
    )


def _trials_table(comparison: Comparison) -> ReportTable:
    seeds = comparison.plan.seeds
    rows = []
    for setting in comparison.plan.settings:
        rows.append([setting.name, *(_score(comparison, setting.name, seed) for seed in seeds)])
    head = ["setting", *(f"seed {seed}" for seed in seeds)]
    return ReportTable("Every training, AP", "", head, rows, [""] * len(rows))


def _score(comparison: Comparison, name: str, seed: int) -> str:
    failure = comparison.failed.get((name, seed))
    if failure is not None:
        return CAUSES[failure.kind]
    result = comparison.results.get((name, seed))
    return NONE if result is None else number(result.ap)


def _classes_table(comparison: Comparison, heading: str, metric: int) -> ReportTable:
    """`metric`: 0 for AP, 1 for AP50."""
    rows: list[list[str]] = []
    best = set()
    for label in comparison.settings[0].per_class:
        spreads = [setting.per_class[label][metric] for setting in comparison.settings]
        index = _index_of_best([each.mean for each in spreads])
        if index is not None:
            best.add((len(rows), index + 1))
        rows.append([label, *(spread(each) for each in spreads)])
    head = ["class", *(setting.name for setting in comparison.settings)]
    remark = "Mean ± standard deviation over seeds."
    return ReportTable(heading, remark, head, rows, [""] * len(rows), frozenset(best))


def _class_differences_table(comparison: Comparison) -> ReportTable:
    def text(difference: PairedDifference) -> str:
        return f"{signed(difference.mean)} ({interval(difference.interval)})"

    rows = []
    for label in comparison.settings[0].per_class if comparison.pairs else ():
        rows.append([label, *(text(pair.per_class[label]) for pair in comparison.pairs)])
    return ReportTable(
        "Classes, AP difference",
        "In parentheses: the 95% interval over seeds, not corrected for the number of classes.",
        ["class", *(_pair_name(pair) for pair in comparison.pairs)],
        rows,
        [""] * len(rows),
    )


def _failed_table(comparison: Comparison) -> ReportTable:
    heading, remark = (
        "Failed trials",
        "Diverged trials count as 0 AP in all differences; those lost to the machine are left out."
        " The same command retries them.",
    )
    if comparison.plan.foreign:
        heading, remark = "Missing files", "They are left out of all differences."
    return make_table(
        heading,
        remark,
        comparison.failed.items(),
        {
            "trial": lambda item: f"{item[0][0]}, seed {item[0][1]}",
            "cause": lambda item: CAUSES[item[1].kind],
            "reason": lambda item: item[1].reason,
        },
        mark=lambda item: "failed",
    )


def _search_tables(comparison: Comparison) -> list[ReportTable]:
    found = comparison.plan.search
    if found is None:
        return []
    effects = {"Search: blocks": ("block", found.blocks), "Search: sites": ("site", found.sites)}
    tables = [
        make_table(
            "Search: ranking",
            "Not evidence: the best of many looks better than it is. AP ahead of none, on a part of"
            " the training images that was held out, mean over seeds. search/ranking.csv has all"
            f" {len(found.gains)} candidates.",
            list(found.gains.items())[:RANKED],
            {
                "setting": lambda item: item[0],
                "seeds": lambda item: str(len(item[1])),
                "AP ahead": lambda item: signed(mean_gain(item[1])),
            },
        )
    ]
    for heading, (column, values) in effects.items():
        table = make_table(
            heading,
            "What the candidates have in common, by least squares over all their trainings: AP"
            " ahead of the mean. Not evidence.",
            values.items() if len(values) > 1 else (),
            {column: lambda item: item[0], "AP ahead": lambda item: signed(item[1])},
        )
        tables.append(table)
    return tables
