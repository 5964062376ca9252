"""The report: `report.html` (one file, opens without a network), `report.md`, `results.csv`, `cells.csv`."""

import base64
import csv
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template

import cv2
import numpy as np

from utils.compare import figures, tables
from utils.compare.analysis import Comparison, Pair
from utils.compare.examples import Example, Examples
from utils.compare.method import method
from utils.compare.tables import Table
from utils.core.errors import UserError

TEMPLATE = Path(__file__).with_name("report.html")


def write_report(out: Path, comparison: Comparison, command: str) -> None:
    """Write the four files into `out`.

    Raises:
        UserError: a file cannot be written.
    """
    texts = {
        "report.html": _html(comparison, command),
        "report.md": _markdown(comparison, command),
        "results.csv": results_csv(comparison),
        "cells.csv": cells_csv(comparison),
    }
    for name, text in texts.items():
        try:
            (out / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise UserError(f"cannot write {out / name}: {error.strerror}") from None


def _tables(comparison: Comparison) -> list[tuple[str, str, Table]]:
    """(heading, remark, table) of everything that HTML and Markdown share."""
    parts = [
        (
            "Settings",
            "Mean ± standard deviation over seeds, in points.",
            tables.settings_table(comparison),
        ),
        ("Differences", "Setting minus reference, AP in points.", tables.pairs_table(comparison)),
        ("What these runs could show", "Of the AP differences.", tables.power_table(comparison)),
        ("Differences of AP50", "Without a verdict, in points.", tables.ap50_table(comparison)),
        (
            "Spread between seeds and between test images",
            "Between seeds: standard deviation of one training. Test images: standard error of the mean over seeds.",
            tables.spread_table(comparison),
        ),
        ("Every training, AP", "", tables.seeds_table(comparison)),
        (
            "Classes, AP",
            "Mean ± standard deviation over seeds.",
            tables.classes_table(comparison, 0),
        ),
        (
            "Classes, AP50",
            "Mean ± standard deviation over seeds.",
            tables.classes_table(comparison, 1),
        ),
    ]
    if comparison.pairs:
        remark = "In brackets the 95% interval over seeds, not corrected for the number of classes."
        parts.append(("Classes, AP difference", remark, tables.class_differences_table(comparison)))
    if comparison.failed:
        remark = "They are left out of all numbers; the same command tries them again."
        parts.append(("Failed trainings", remark, tables.failed_table(comparison)))
    return [part for part in parts if part[2].rows]


def _title(comparison: Comparison) -> tuple[str, str]:
    plan = comparison.plan
    names = ", ".join(variant.name for variant in plan.variants)
    seeds = "one seed" if len(plan.seeds) == 1 else f"{len(plan.seeds)} seeds"
    return (
        f"Comparison: {plan.config_name}",
        f"{names}; baseline {plan.baseline}; {seeds}; {comparison.images} test images",
    )


def _html(comparison: Comparison, command: str) -> str:
    title, subtitle = (html.escape(text) for text in _title(comparison))
    shared = {heading: (remark, table.to_html()) for heading, remark, table in _tables(comparison)}
    parts = ["<h2>Verdicts</h2>", *map(_verdict, comparison.pairs)]
    if comparison.failed:
        parts.append(
            f'<div class="verdict failed">{len(comparison.failed)} trainings failed; see below.</div>'
        )
    pictures = {
        "Settings": (
            "price",
            figures.price(comparison),
            "Accuracy against latency. Hollow: fair controls.",
        ),
        "Every training, AP": (
            "curves",
            figures.curves(comparison),
            "Over the epochs; bands reach over all seeds.",
        ),
    }
    if comparison.pairs:
        pictures["Differences"] = (
            "differences",
            figures.differences(comparison),
            "AP differences and intervals.",
        )
    for heading, (remark, table) in shared.items():
        parts += [
            f"<h2>{html.escape(heading)}</h2>",
            f'<p class="soft">{html.escape(remark)}</p>' if remark else "",
        ]
        parts.append(table)
        if heading in pictures:
            name, png, caption = pictures[heading]
            parts.append(_figure(png, "png", name, caption))
    parts += [*_examples(comparison), *_closing(comparison, command)]
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=title, subtitle=subtitle, body="\n".join(part for part in parts if part)
    )


def _verdict(pair: Pair) -> str:
    return f'<div class="verdict {pair.verdict.split()[0]}">{html.escape(pair.sentence)}</div>'


def _figure(data: bytes, kind: str, name: str, caption: str) -> str:
    text = base64.b64encode(data).decode()
    alt = html.escape(name, quote=True)
    return (
        f'<figure><img alt="{alt}" src="data:image/{kind};base64,{text}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _examples(comparison: Comparison) -> list[str]:
    """The images on which a setting and its reference differ most."""
    if not comparison.pairs:
        return []
    examples, parts = Examples(comparison), []
    for pair in comparison.pairs:
        found = examples.of_pair(pair)
        if found:
            parts.append(f"<h3>{html.escape(pair.name)} against {html.escape(pair.reference)}</h3>")
            parts += [
                '<div class="examples">',
                *(_example(pair, example) for example in found),
                "</div>",
            ]
    remark = (
        "By F1 at IoU 0.5, mean over seeds, each network at the score threshold of its best F1. "
        "Drawn is the seed nearest to that mean."
    )
    body = parts or ["<p>No image tells the settings apart.</p>"]
    return [
        "<h2>Images on which the settings differ most</h2>",
        f'<p class="soft">{remark}</p>',
        *body,
    ]


def _example(pair: Pair, example: Example) -> str:
    side = "ahead" if example.difference > 0 else "behind"
    caption = (
        f"{example.name}, seed {example.seed}: ground truth (dashed), {pair.reference}, {pair.name}. "
        f"{pair.name} is {side} by {abs(example.difference):.2f} F1."
    )
    return _figure(_jpeg(example.drawn), "jpeg", example.name, caption)


def _jpeg(rgb: np.ndarray) -> bytes:
    return cv2.imencode(
        ".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88]
    )[1].tobytes()


def _closing(comparison: Comparison, command: str) -> list[str]:
    items = "\n".join(
        f"<dt>{html.escape(head)}</dt><dd>{html.escape(text)}</dd>"
        for head, text in method(comparison)
    )
    return [
        "<h2>How these numbers are computed</h2>",
        f"<dl>{items}</dl>",
        "<h2>Repeat it</h2>",
        f"<pre>{html.escape(command)}</pre>",
    ]


def _markdown(comparison: Comparison, command: str) -> str:
    title, subtitle = _title(comparison)
    lines = [f"# {title}", "", subtitle, "", "## Verdicts", ""]
    lines += [f"- {pair.sentence}" for pair in comparison.pairs]
    for heading, remark, table in _tables(comparison):
        lines += ["", f"## {heading}", "", *([remark, ""] if remark else []), table.to_markdown()]
    lines += ["", "## How these numbers are computed", ""]
    lines += [f"- **{head}.** {text}" for head, text in method(comparison)]
    return "\n".join([*lines, "", "## Repeat it", "", "```", command, "```", ""])


def results_csv(comparison: Comparison) -> str:
    """One row a setting; scores and differences in points, empty where there is none."""
    head = (
        "setting", "control_of", "seeds", "failed", "ap", "ap_std", "ap_image_se", "ap50", "ap50_std", "ap50_image_se",
        "reference", "ap_difference", "seeds_low", "seeds_high", "images_low", "images_high", "both_low", "both_high",
        "p", "corrected_p", "sign_flip_p", "sign_flip_least_p", "effect_g", "power_1ap", "seeds_needed_1ap", "verdict",
        "params", "gflops", "latency_ms", "train_seconds",
    )  # fmt: skip
    return _csv(head, _result_rows(comparison))


def _result_rows(comparison: Comparison) -> Iterable[Sequence[object]]:
    """A setting without a pair (the baseline) once, the others once a pair."""
    for one in comparison.settings:
        failed = sum(name == one.name for name, _ in comparison.failed)
        scores = [
            one.name,
            one.control_of,
            one.ap.count,
            failed,
            one.ap.mean,
            one.ap.deviation,
            one.ap_image_error,
        ]
        scores += [one.ap50.mean, one.ap50.deviation, one.ap50_image_error]
        cost = [one.params, one.gflops, one.latency, one.train_seconds]
        pairs = [_pair_columns(pair) for pair in comparison.pairs if pair.name == one.name]
        yield from ([*scores, *pair, *cost] for pair in pairs or [[None] * 16])


def _pair_columns(pair: Pair) -> list[object]:
    ap = pair.ap
    return [
        pair.reference, ap.mean, ap.low, ap.high, *pair.images, *pair.combined, ap.p, pair.corrected_p,
        ap.sign_p, ap.sign_floor, ap.effect, pair.power, pair.needed, pair.verdict,
    ]  # fmt: skip


def cells_csv(comparison: Comparison) -> str:
    """One row a training; AP and AP50 in points, per class too."""
    labels = list(comparison.settings[0].per_class)
    columns = [f"{metric} {label}" for label in labels for metric in ("ap", "ap50")]
    rows: list[list[object]] = []
    for cell in comparison.plan.cells:
        outcome = comparison.outcomes.get((cell.variant, cell.seed))
        if outcome is None:
            rows.append([cell.variant, cell.seed, "failed", *[None] * (3 + len(columns))])
            continue
        classes = [value for label in labels for value in outcome.per_class[label]]
        rows.append(
            [
                cell.variant,
                cell.seed,
                "finished",
                outcome.ap,
                outcome.ap50,
                outcome.train_seconds,
                *classes,
            ]
        )
    return _csv(("setting", "seed", "state", "ap", "ap50", "train_seconds", *columns), rows)


def _csv(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, float):
        return "" if value != value else f"{value:.6g}"
    return "" if value is None else value
