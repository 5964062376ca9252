"""The report: `report.html` (needs no network), `report.md`, `results.csv`, `trials.csv`.

For papers: `report.tex`, `methods.md` and `figures/`. For programs: `report.json`.
"""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import jinja2

from utils.compare.analysis.comparison import Comparison, PairSummary
from utils.compare.reporting import figures
from utils.compare.reporting.difference_tables import equivalence_column
from utils.compare.reporting.examples import Example, ExampleFinder, is_drawable
from utils.compare.reporting.figures import Plot
from utils.compare.reporting.numbers import write_numbers
from utils.compare.reporting.paper import render_methods, render_tex
from utils.compare.reporting.phrases import conditions, details, headline, notes, probability
from utils.compare.reporting.tables import report_tables
from utils.compare.reporting.translation import LANGUAGE_FOLDER, Language, Translator, read_phrases
from utils.compare.statistics import paired
from utils.core.outputs import write_file
from utils.visualization.page import EmbeddedImage, embed_photo, embed_png, template_environment

TEMPLATES = Path(__file__).with_name("templates")
HTML_LANGUAGES: dict[Language, str] = {"en": "en", "zh": "zh-CN"}
# Columns of results.csv and the sources of their values.
SCORE_COLUMNS = {
    "setting": "name",
    "control_of": "control_of",
    "seeds": "ap.count",
    "failed": "failed",
    "ap": "ap.mean",
    "ap_std": "ap.deviation",
    "ap_image_se": "ap_image_error",
    "ap50": "ap50.mean",
    "ap50_std": "ap50.deviation",
    "ap50_image_se": "ap50_image_error",
}
PAIR_COLUMNS = {
    "reference": "reference",
    "seeds_planned": "planned",
    "look": "look_number",
    "ap_difference": "ap.mean",
    "seeds_low": "ap.interval.low",
    "seeds_high": "ap.interval.high",
    "images_low": "images.low",
    "images_high": "images.high",
    "both_low": "combined.low",
    "both_high": "combined.high",
    "p": "ap.p",
    "corrected_p": "corrected_p",
    "margin": "margin",
    "equivalence_p": "equivalence_p",
    "sign_flip_p": "ap.sign_p",
    "sign_flip_least_p": "ap.sign_floor",
    "effect_g": "ap.effect",
    "power_1ap": "power",
    "seeds_needed_1ap": "needed",
    "verdict": "verdict",
}
COST_COLUMNS = {
    "params": "params",
    "gflops": "gflops",
    "latency_ms": "latency",
    "latency_low": "latency_interval.low",
    "latency_high": "latency_interval.high",
    "train_seconds": "train_seconds",
}

FIGURES = "figures"  # folder
PRINT_FORMATS = ("svg", "pdf")
# Plot -> the table it stands below, and its caption
CAPTIONS = {
    "cost": ("Settings", "Accuracy against latency. Hollow: fair controls."),
    "curves": ("Every training, AP", "Over the epochs; bands span all seeds."),
    "differences": ("Differences", "AP differences and intervals."),
}
# Column of a table -> heading of the paragraph that explains it
LINKS = {
    **dict.fromkeys(("AP", "AP50", "reference's AP", "AP difference"), "What is compared"),
    **dict.fromkeys(("verdict", "p", "corrected p"), "Verdict"),
    **dict.fromkeys(("look", "level of p", "without a verdict"), "Looks"),
    **dict.fromkeys(("GFLOPs", "latency, ms", "training, s"), "Cost"),
    **dict.fromkeys(("sign-flip p", "smallest possible p"), "Sign-flip p"),
    **dict.fromkeys(
        ("spread between seeds", "effect g", "power for 1 AP", "seeds needed for 1 AP"),
        "Effect, power, seeds needed",
    ),
    "95% seeds and images": "95% seeds and images",
    "95% over seeds": "95% over seeds",
    "95% over images": "95% over images",
}


def slug(heading: str) -> str:
    """A heading as the name of an anchor."""
    return "-".join(re.findall(r"[a-z0-9]+", heading.lower()))


def write_report(
    out: Path, comparison: Comparison, command: str, language: Language = "en"
) -> None:
    """Write all files into `out`; only `report.html` and `report.md` speak another language.

    Raises:
        WriteError: a file cannot be written.
    """
    plots = figures.draw_all(comparison)
    for name, plot in plots.items():
        for suffix in PRINT_FORMATS:
            write_file(out / FIGURES / f"{name}.{suffix}", plot[suffix])
    for name, text in report_texts(comparison, command, language, plots).items():
        write_file(out / name, text)
    write_numbers(out, comparison, command, language)


def report_texts(
    comparison: Comparison, command: str, language: Language, plots: Mapping[str, Plot]
) -> dict[str, str]:
    """Name -> content of all files that are text."""
    return {
        "report.html": render_html(comparison, command, language, plots),
        "report.md": render_markdown(comparison, command, language),
        "results.csv": results_csv(comparison),
        "trials.csv": trials_csv(comparison),
        "report.tex": render_tex(comparison),
        "methods.md": render_methods(comparison),
    }


def render_html(
    comparison: Comparison,
    command: str,
    language: Language = "en",
    plots: Mapping[str, Plot] | None = None,
) -> str:
    """The HTML page, with all images embedded; the plots are drawn if they are not given."""
    context = _context(comparison, command)
    context["figures"] = _figures(figures.draw_all(comparison) if plots is None else plots)
    context["examples"] = _examples(comparison)
    return render("report.html", context, language)


def render_markdown(comparison: Comparison, command: str, language: Language = "en") -> str:
    """The same text and tables without images."""
    return render("report.md", _context(comparison, command), language)


def render(template: str, context: Mapping[str, Any], language: Language) -> str:
    """Fill in a template; values are escaped if it is an HTML page."""
    environment = _environment(language, autoescape=template.endswith(".html"))
    values = {"language": HTML_LANGUAGES[language], **context}
    return environment.get_template(template).render(values)


def _environment(language: Language, autoescape: bool) -> jinja2.Environment:
    environment = template_environment(LANGUAGE_FOLDER / language, TEMPLATES, autoescape=autoescape)
    translate = Translator(read_phrases(language))
    environment.filters.update(
        headline=headline,
        details=details,
        probability=probability,
        slug=slug,
        t=translate,
        captioned=lambda image: replace(image, caption=translate(image.caption)),
    )
    return environment


def _context(comparison: Comparison, command: str) -> dict[str, Any]:
    seeds = len(comparison.plan.seeds)
    return {
        "comparison": comparison,
        "plan": comparison.plan,
        "title": f"Comparison: {comparison.plan.config_name}",
        "tables": report_tables(comparison),
        "command": command,
        "family": comparison.family,
        "notes": notes(comparison),
        "conditions": conditions(comparison),
        "has_images": any(map(is_drawable, next(iter(comparison.splits.values())).samples)),
        "links": _links(comparison),
        "alpha": paired.ALPHA,
        "min_seeds": paired.min_seeds(comparison.family),
        "sign_floor": paired.sign_floor(seeds),
    }


def _links(comparison: Comparison) -> dict[str, str]:
    margin = comparison.plan.margin
    return LINKS if margin is None else {**LINKS, equivalence_column(margin): "Practically equal"}


def _figures(plots: Mapping[str, Plot]) -> dict[str, EmbeddedImage]:
    """Table's heading -> the figure below it."""
    embedded = {}
    for name, plot in plots.items():
        heading, caption = CAPTIONS[name]
        embedded[heading] = embed_png(plot["png"], name, caption)
    return embedded


def _examples(comparison: Comparison) -> list[tuple[PairSummary, list[EmbeddedImage]]]:
    """The images on which a setting and its reference differ most, for pairs that have any."""
    finder = ExampleFinder(comparison)
    examples = []
    for pair in comparison.pairs:
        images = [_embed_example(pair, example) for example in finder.find(pair)]
        if images:
            examples.append((pair, images))
    return examples


def _embed_example(pair: PairSummary, example: Example) -> EmbeddedImage:
    side = "ahead" if example.difference > 0 else "behind"
    caption = (
        f"{example.name}, seed {example.seed}: ground truth (dashed), {pair.reference},"
        f" {pair.name}. {pair.name} is {side} by {abs(example.difference):.2f} F1."
    )
    return embed_photo(example.drawn, example.name, caption)


def results_csv(comparison: Comparison) -> str:
    """One row per pair, and one for a setting without any; scores in points, empty if unknown."""
    rows = []
    for setting in comparison.settings:
        scores = _values(setting, SCORE_COLUMNS)
        cost = _values(setting, COST_COLUMNS)
        pairs = [pair for pair in comparison.pairs if pair.name == setting.name]
        for pair in pairs:
            rows.append([*scores, *_values(pair, PAIR_COLUMNS), *cost])
        if not pairs:
            rows.append([*scores, *[None] * len(PAIR_COLUMNS), *cost])
    return format_csv([*SCORE_COLUMNS, *PAIR_COLUMNS, *COST_COLUMNS], rows)


def _values(summary: object, columns: Mapping[str, str]) -> list[object]:
    return [attrgetter(path)(summary) for path in columns.values()]


def trials_csv(comparison: Comparison) -> str:
    """One row per trial; AP and AP50 in points, per class too."""
    labels = list(comparison.settings[0].per_class)
    head = ["setting", "seed", "state", "ap", "ap50", "train_seconds"]
    for label in labels:
        head += [f"ap {label}", f"ap50 {label}"]
    rows: list[list[object]] = []
    for trial in comparison.plan.trials:
        result = comparison.results.get((trial.setting, trial.seed))
        if result is None:
            row = [trial.setting, trial.seed, "missing" if comparison.plan.foreign else "failed"]
            rows.append(row + [None] * (len(head) - len(row)))
            continue
        row = [trial.setting, trial.seed, "finished"]
        row += [result.ap, result.ap50, result.train_seconds]
        for label in labels:
            row += result.per_class[label]
        rows.append(row)
    return format_csv(head, rows)


def format_csv(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as CSV; numbers have six significant digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    for row in rows:
        writer.writerow([_csv_value(value) for value in row])
    return text.getvalue()


def _csv_value(value: object) -> object:
    if isinstance(value, float):
        return "" if value != value else f"{value:.6g}"
    return "" if value is None else value
