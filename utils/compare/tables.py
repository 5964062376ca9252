"""The tables of a report, once for HTML and Markdown."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from utils.compare.analysis import Comparison, Pair, Setting
from utils.compare.wording import interval, probability, seeds_text, signed


@dataclass(frozen=True)
class Table:
    """Text cells; the first column is a name, the others are numbers. `mark`: a row's CSS class, if any."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    mark: Sequence[str] = ()

    def to_html(self) -> str:
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in self.head)
        marks = self.mark or [""] * len(self.rows)
        body = "".join(
            f'<tr class="{mark}">'
            + "".join(f"<td>{html.escape(cell)}</td>" for cell in row)
            + "</tr>\n"
            for row, mark in zip(self.rows, marks, strict=True)
        )
        return f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>'

    def to_markdown(self) -> str:
        rule = ["---", *["---:"] * (len(self.head) - 1)]
        lines = [self.head, rule, *self.rows]
        return "\n".join(
            "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
        )


def number(value: float, digits: int = 2) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def settings_table(comparison: Comparison) -> Table:
    """Scores and price."""
    base = next((one for one in comparison.settings if one.name == comparison.plan.baseline), None)
    head = ("setting", "seeds", "AP", "AP50", "parameters", "GFLOPs", "latency, ms", "training, s")
    return Table(head, [_setting_row(one, base) for one in comparison.settings])


def _setting_row(one: Setting, base: Setting | None) -> list[str]:
    more = (
        f" (+{one.params - base.params:,})"
        if base and base is not one and one.params >= base.params
        else ""
    )
    slower = (
        f" ({100 * (one.latency / base.latency - 1):+.0f} %)" if base and base is not one else ""
    )
    return [
        one.name,
        str(one.ap.count),
        one.ap.text(),
        one.ap50.text(),
        f"{one.params:,}{more}",
        f"{one.gflops:.3f}",
        f"{one.latency:.1f}{slower}",
        f"{one.train_seconds:,.0f}",
    ]


def pairs_table(comparison: Comparison) -> Table:
    """AP differences, and what they show."""
    head = (
        "setting – reference", "verdict", "AP difference", "95% over seeds", "95% over images", "95% seeds and images",
        "p", "corrected p",
    )  # fmt: skip
    rows = [
        [
            f"{pair.name} – {pair.reference}",
            _short(pair),
            signed(pair.ap.mean),
            interval(pair.ap.low, pair.ap.high),
            interval(*pair.images),
            interval(*pair.combined),
            probability(pair.ap.p),
            probability(pair.corrected_p),
        ]
        for pair in comparison.pairs
    ]
    return Table(head, rows, [_short(pair).split()[0] for pair in comparison.pairs])


def _short(pair: Pair) -> str:
    return "no difference shown" if pair.verdict.startswith("no") else pair.verdict


def power_table(comparison: Comparison) -> Table:
    """How large the effect is against the spread, and what it would take to see one."""
    head = (
        "setting – reference", "spread between seeds", "effect g", "sign-flip p", "its least value", "power for 1 AP",
        "seeds needed for 1 AP",
    )  # fmt: skip
    return Table(
        head,
        [
            [
                f"{pair.name} – {pair.reference}",
                number(pair.ap.spread),
                signed(pair.ap.effect),
                probability(pair.ap.sign_p),
                probability(pair.ap.sign_floor),
                "–" if math.isnan(pair.power) else f"{100 * pair.power:.0f} %",
                _needed(pair),
            ]
            for pair in comparison.pairs
        ],
    )


def ap50_table(comparison: Comparison) -> Table:
    """AP50 differences."""
    head = ("setting – reference", "AP50 difference", "95% over seeds", "95% over images")
    rows = [
        [
            f"{pair.name} – {pair.reference}",
            signed(pair.ap50.mean),
            interval(pair.ap50.low, pair.ap50.high),
            interval(*pair.images50),
        ]
        for pair in comparison.pairs
    ]
    return Table(head, rows)


def _needed(pair: Pair) -> str:
    if math.isnan(pair.power):
        return "–"
    return f"{seeds_text(pair.needed)} ({seeds_text(pair.needed_range[0])} to {seeds_text(pair.needed_range[1])})"


def spread_table(comparison: Comparison) -> Table:
    """Between seeds and between test images, apart."""
    head = (
        "setting",
        "AP, between seeds",
        "AP, test images",
        "AP50, between seeds",
        "AP50, test images",
    )
    return Table(
        head,
        [
            [
                one.name,
                number(one.ap.deviation),
                number(one.ap_image_error),
                number(one.ap50.deviation),
                number(one.ap50_image_error),
            ]
            for one in comparison.settings
        ],
    )


def seeds_table(comparison: Comparison) -> Table:
    """AP of every training."""
    seeds = comparison.plan.seeds
    names = [variant.name for variant in comparison.plan.variants]
    rows = [[name, *(_score(comparison, name, seed) for seed in seeds)] for name in names]
    return Table(("setting", *(f"seed {seed}" for seed in seeds)), rows)


def _score(comparison: Comparison, name: str, seed: int) -> str:
    if (name, seed) in comparison.failed:
        return "failed"
    outcome = comparison.outcomes.get((name, seed))
    return "–" if outcome is None else number(outcome.ap)


def classes_table(comparison: Comparison, column: int) -> Table:
    """Means and spreads of a class's AP (column 0) or AP50 (column 1)."""
    labels = list(comparison.settings[0].per_class)
    rows = [
        [label, *(one.per_class[label][column].text() for one in comparison.settings)]
        for label in labels
    ]
    return Table(("class", *(one.name for one in comparison.settings)), rows)


def class_differences_table(comparison: Comparison) -> Table:
    """AP differences of a class with their 95% intervals over seeds."""
    labels = list(comparison.pairs[0].per_class) if comparison.pairs else []
    rows = []
    for label in labels:
        found = [pair.per_class[label] for pair in comparison.pairs]
        rows.append(
            [label, *(f"{signed(one.mean)} ({interval(one.low, one.high)})" for one in found)]
        )
    return Table(("class", *(f"{pair.name} – {pair.reference}" for pair in comparison.pairs)), rows)


def failed_table(comparison: Comparison) -> Table:
    rows = [[f"{name}, seed {seed}", reason] for (name, seed), reason in comparison.failed.items()]
    return Table(("training", "why"), rows, ["failed"] * len(rows))
