"""All tables of a report, in its order."""

from utils.compare.analysis.comparison import Comparison
from utils.compare.reporting.difference_tables import (
    ap50_table,
    class_differences_table,
    looks_table,
    pairs_table,
    power_table,
)
from utils.compare.reporting.phrases import CAUSES, signed
from utils.compare.reporting.setting_tables import (
    classes_table,
    settings_table,
    spread_table,
    trials_table,
)
from utils.compare.reporting.table import ReportTable, make_table
from utils.compare.statistics.halving import mean_gain

RANKED = 30  # rows of the ranking of a search


def report_tables(comparison: Comparison) -> list[ReportTable]:
    """Return all tables that have rows, in the report's order."""
    tables = [
        settings_table(comparison),
        pairs_table(comparison),
        *([looks_table(comparison)] if comparison.plan.looks else []),
        power_table(comparison),
        ap50_table(comparison),
        spread_table(comparison),
        trials_table(comparison),
        classes_table(comparison, "Classes, AP", 0),
        classes_table(comparison, "Classes, AP50", 1),
        class_differences_table(comparison),
        *_search_tables(comparison),
        _failed_table(comparison),
    ]
    return [table for table in tables if table.rows]


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
