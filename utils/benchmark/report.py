"""The tables as text and as Markdown, and the whole as JSON."""

from collections.abc import Sequence
from typing import Any

from utils.benchmark.rows import Row, Section
from utils.core.timing import Stat

HEAD = ("", "median [quartiles]", "", "ratio [quartiles]", "GFLOP/s", "of peak", "target")


def as_text(section: Section) -> str:
    """Aligned columns under a title."""
    rows = [HEAD, *(cells(row) for row in section.rows)]
    kept = [column for column in zip(*rows, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in kept]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in zip(*kept, strict=True)
    ]
    notes = [f"  {note}" for note in section.notes]
    return "\n".join(
        [
            f"{section.name}: {section.title}",
            lines[0],
            "-" * max(map(len, lines)),
            *lines[1:],
            *notes,
        ]
    )


def as_markdown(section: Section) -> str:
    """A heading, a table and a list of notes."""
    columns = [
        column
        for column in zip(HEAD, *(cells(row) for row in section.rows), strict=True)
        if any(column[1:])
    ]
    head, *rows = zip(*columns, strict=True)
    rule = "| --- |" + " ---: |" * (len(head) - 1)
    table = [_markdown_row(head), rule, *(_markdown_row(row) for row in rows)]
    notes = [f"- {note}" for note in section.notes]
    return "\n".join(
        [f"## {section.name}: {section.title}", "", *table, *(["", *notes] if notes else [])]
    )


def cells(row: Row) -> tuple[str, ...]:
    """The columns of `HEAD`."""
    return (
        row.what,
        shown(row.value),
        row.unit,
        f"{shown(row.ratio)} x {row.over}" if row.ratio else "",
        number(row.gflops) if row.gflops is not None else "",
        f"{100 * row.share:.0f} %" if row.share is not None else "",
        f"{row.target} {'met' if row.met else 'MISSED'}" if row.target else "",
    )


def shown(stat: Stat) -> str:
    """The median and, of several values, the quartiles."""
    spread = f" [{number(stat.low)} to {number(stat.high)}]" if stat.n > 1 else ""
    return number(stat.median) + spread


def number(value: float) -> str:
    """Three digits, or the integer part."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def summary(sections: Sequence[Section]) -> str:
    """How many targets are met, and which are not."""
    aimed = [row for section in sections for row in section.rows if row.target]
    missed = [f"{row.key} ({number(row.aimed)}, {row.target})" for row in aimed if not row.met]
    text = f"targets met: {len(aimed) - len(missed)} of {len(aimed)}"
    return f"{text}; missed: {', '.join(missed)}" if missed else text


def as_json(sections: Sequence[Section], header: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The content of `--json`; its keys are explained in `utils.benchmark`."""
    rows = [row for section in sections for row in section.rows if row.target]
    return {
        **header,
        "sections": {section.name: section.to_json() for section in sections},
        "targets": {
            "met": [row.key for row in rows if row.met],
            "missed": [row.key for row in rows if not row.met],
        },
        "seconds": round(seconds, 1),
    }


def _markdown_row(row: Sequence[str]) -> str:
    return f"| {' | '.join(row)} |"
