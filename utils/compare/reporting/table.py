"""A table of a report as text, which the templates render."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from utils.compare.reporting.phrases import NONE

Item = TypeVar("Item")


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


def with_best(
    table: ReportTable, column: str, values: Sequence[float], sign: int = 1
) -> ReportTable:
    """The table with the best value of a column in bold: the largest; sign -1: the smallest."""
    row = index_of_best([sign * value for value in values])
    cells = set() if row is None else {(row, table.head.index(column))}
    return replace(table, best=table.best | cells)


def index_of_best(values: Sequence[float]) -> int | None:
    """Index of the largest value, NaN aside; None if it is the only one, or not unique."""
    known = [value for value in values if not math.isnan(value)]
    if len(known) < 2 or known.count(max(known)) > 1:
        return None
    return values.index(max(known))


def known_columns(
    items: Sequence[Item], columns: Mapping[str, Callable[[Item], str]]
) -> dict[str, Callable[[Item], str]]:
    """The columns in which something is known of any item."""
    return {
        name: text for name, text in columns.items() if any(text(item) != NONE for item in items)
    }
