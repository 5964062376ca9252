"""Tables of the settings: scores, prices, spreads, every training, classes."""

import math
from collections.abc import Callable

from utils.compare.analysis.comparison import Comparison, SettingSummary
from utils.compare.reporting.phrases import CAUSES, NONE, number, signed, spread
from utils.compare.reporting.table import (
    ReportTable,
    index_of_best,
    known_columns,
    make_table,
    with_best,
)


def settings_table(comparison: Comparison) -> ReportTable:
    """Scores and prices of the settings."""
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
        costs = known_columns(settings, costs)
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
    table = with_best(table, "AP", [each.ap.mean for each in settings])
    table = with_best(table, "AP50", [each.ap50.mean for each in settings])
    if "latency, ms" not in costs:
        return table
    return with_best(table, "latency, ms", [each.latency for each in settings], sign=-1)


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
    return f"{text}, {signed(100 * (setting.latency / baseline.latency - 1), 0)}%"


def spread_table(comparison: Comparison) -> ReportTable:
    """How much scores vary between seeds and between test images."""
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


def trials_table(comparison: Comparison) -> ReportTable:
    """AP of every training."""
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


def classes_table(comparison: Comparison, heading: str, metric: int) -> ReportTable:
    """`metric`: 0 for AP, 1 for AP50."""
    rows: list[list[str]] = []
    best = set()
    for label in comparison.settings[0].per_class:
        spreads = [setting.per_class[label][metric] for setting in comparison.settings]
        index = index_of_best([each.mean for each in spreads])
        if index is not None:
            best.add((len(rows), index + 1))
        rows.append([label, *(spread(each) for each in spreads)])
    head = ["class", *(setting.name for setting in comparison.settings)]
    remark = "Mean ± standard deviation over seeds."
    return ReportTable(heading, remark, head, rows, [""] * len(rows), frozenset(best))
