r"""`report.tex` and `methods.md`: what a paper needs, in English.

All values in `report.tex` are escaped, so that no name can end a table or start a command; text
that is LaTeX itself is wrapped in `Tex`.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path

from utils.compare.analysis.comparison import Comparison, PairSummary, SettingSummary
from utils.compare.reporting import figures
from utils.compare.reporting.phrases import number, probability, signed, spread
from utils.compare.statistics import paired
from utils.compare.statistics.paired import EQUAL, Interval
from utils.visualization.page import template_environment

TEMPLATES = Path(__file__).with_name("templates")

ESCAPES = {
    "\\": r"\textbackslash{}",
    **{letter: f"\\{letter}" for letter in "{}$&#_%"},
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": "$<$",
    ">": "$>$",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    # `--` is a dash, and `\\` takes what follows in a cell as its option
    **{letter: f"{{{letter}}}" for letter in "-[]*"},
    "−": "$-$",
    "“": "``",
    "”": "''",
    "±": r"$\pm$",
    "×": r"$\times$",
    "²": "$^2$",
}
LAST_LETTER = "\u017f"  # of the Latin alphabets that pdfLaTeX has
PUNCTUATION = "–—‘’…"  # that it has, too
CHINESE = re.compile("[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]")
OPTIMIZERS = {"muon": "Muon", "sgd": "SGD", "adamw": "AdamW"}
MARKS = {"better": r"$\uparrow$", "worse": r"$\downarrow$", EQUAL: r"$\approx$"}
NO_MARK = r"$\circ$"  # neither a difference nor its absence is shown
FIGURES = {
    "differences": "Mean AP differences with 95% intervals; ticks are single seeds.",
    "cost": "Accuracy against latency; mean and standard deviation over seeds. Hollow: controls.",
    "curves": "AP and training loss over the epochs; mean and range over seeds.",
}
Row = list[str] | None  # None: a rule


class Tex(str):
    """Text that is LaTeX and therefore not escaped."""

    __slots__ = ()


def escape(value: object) -> str:
    """A value as text of a LaTeX document; `Tex` stays as it is."""
    if isinstance(value, Tex):
        return value
    return "".join(ESCAPES.get(letter, letter) for letter in " ".join(str(value).split()))


def render_methods(comparison: Comparison) -> str:
    """Paragraphs for a paper, generated from the plan; Markdown without any markup."""
    return "\n\n".join(_methods(comparison)) + "\n"


def render_tex(comparison: Comparison) -> str:
    """The document with methods, table and figures."""
    environment = template_environment(TEMPLATES, autoescape=False).overlay(
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
        finalize=escape,
    )
    environment.filters["raw"] = Tex
    methods, caption = _methods(comparison), _caption(comparison)
    head, rows = _table(comparison)
    values = [*methods, caption, *head, *(cell for row in rows for cell in row or ())]
    uncommon = sorted({letter for text in values for letter in text if _is_uncommon(letter)})
    return environment.get_template("report.tex").render(
        uncommon=Tex(" ".join(uncommon)),
        has_chinese=bool(CHINESE.search("".join(uncommon))),
        methods=methods,
        caption=caption,
        columns="l" + "r" * (len(head) - 1),
        head=head,
        rows=rows,
        figures=_figures(comparison),
    )


def _figures(comparison: Comparison) -> dict[str, str]:
    return {name: FIGURES[name] for name in figures.names(comparison)}


def _is_uncommon(letter: str) -> bool:
    return letter > LAST_LETTER and letter not in ESCAPES and letter not in PUNCTUATION


def _methods(comparison: Comparison) -> list[str]:
    plan = comparison.plan
    others = [setting.name for setting in plan.settings if setting.name != plan.baseline]
    config = plan.settings[0].config
    text = (
        template_environment(TEMPLATES, autoescape=False)
        .get_template("methods.jinja")
        .render(
            comparison=comparison,
            plan=plan,
            config=config,
            others=_enumerated(others),
            seeds=_seeds(plan.seeds),
            looks=_enumerated([str(look) for look in plan.looks]),
            optimizer=OPTIMIZERS[config.train.optimizer],
            level=f"{100 * paired.ALPHA:g}%",
            min_seeds=paired.min_seeds(comparison.family),
        )
    )
    return [" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n")]


def _enumerated(names: Sequence[str]) -> str:
    """`a, b and c`."""
    *first, last = names or ["nothing"]
    return f"{', '.join(first)} and {last}" if first else last


def _seeds(seeds: Sequence[int]) -> str:
    """`0 to 5`, or all of them if they do not follow one another."""
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))


def _caption(comparison: Comparison) -> Tex:
    plan = comparison.plan
    data = plan.settings[0].config.data
    images = plan.foreign.truth if plan.foreign else data.test or data.val
    count = "one seed" if len(plan.seeds) == 1 else f"{len(plan.seeds)} seeds"
    parts = [
        escape(
            f"AP (COCO, points) on the {comparison.images} images of “{images}”:"
            f" mean ± standard deviation over {count} ({_seeds(plan.seeds)})."
        ),
        rf"$\Delta$: mean difference to {escape(plan.baseline)} on the same seeds, with its"
        r" 95\% interval for new seeds and new images; each interval holds by itself."
        r" $p$: paired $t$ test over seeds, corrected by Holm's method for"
        f" {_tests(comparison.family)}.",
    ]
    if plan.looks:
        parts.append(
            f"Looks were declared after {_enumerated([str(look) for look in plan.looks])} seeds;"
            " $p$ and the intervals over seeds hold for all looks together, and what has a verdict"
            " stops."
        )
    if plan.margin is not None:
        parts.append(
            rf"$p_\approx$: TOST with the margin of {plan.margin:g} AP declared before any result,"
            " corrected alike."
        )
    parts += _mark_meanings(comparison)
    parts.append("Latency: median of one image, end to end.")
    return Tex(" ".join(parts))


def _tests(family: int) -> str:
    return "one comparison" if family == 1 else f"{family} comparisons"


def _mark_meanings(comparison: Comparison) -> list[str]:
    texts = [r"Verdicts: $\uparrow$ better, $\downarrow$ worse,"]
    margin = comparison.plan.margin
    if margin is not None:
        texts.append(
            rf"$\approx$ practically equal (the difference is less than {margin:g} AP;"
            " beside an arrow: shown, but less than that),"
        )
        texts.append(rf"{NO_MARK} undecided.")
    else:
        texts.append(rf"{NO_MARK} no difference shown, which does not mean equal.")
    if any(setting.failed for setting in comparison.settings):
        texts.append("Trainings that diverged count as 0 AP in differences.")
    return texts


def _table(comparison: Comparison) -> tuple[list[str], list[Row]]:
    """Column heads, and a row for every setting, then for every control."""
    margin = comparison.plan.margin
    head = ["Setting", "AP", Tex(r"$\Delta$"), Tex(r"95\% interval"), Tex("$p$")]
    if margin is not None:
        head.append(Tex(r"$p_\approx$"))
    head += ["", "Params (M)", "GFLOPs", "Latency (ms)"]
    pairs = {(pair.name, pair.reference): pair for pair in comparison.pairs}
    rows: list[Row] = []
    for setting in comparison.settings:
        pair = pairs.pop((setting.name, comparison.plan.baseline), None)
        rows.append(
            [
                *_score(setting, len(comparison.plan.seeds)),
                *_difference(pair, margin),
                *_price(setting),
            ]
        )
    if pairs:
        rows.append(None)
    for pair in pairs.values():
        rows.append([f"{pair.name} − {pair.reference}", "", *_difference(pair, margin), "", "", ""])
    return head, rows


def _score(setting: SettingSummary, seeds: int) -> list[str]:
    fewer = f" ({setting.ap.count} seeds)" if setting.ap.count < seeds else ""
    return [setting.name, f"{spread(setting.ap)}{fewer}"]


def _price(setting: SettingSummary) -> list[str]:
    params = math.nan if setting.params is None else setting.params / 1e6
    return [number(params, 3), number(setting.gflops, 3), number(setting.latency, 1)]


def _difference(pair: PairSummary | None, margin: float | None) -> list[str]:
    """Difference, interval, p values and mark; empty for the baseline."""
    if pair is None:
        return [""] * (4 if margin is None else 5)
    p = [probability(pair.corrected_p)]
    if margin is not None:
        p.append(probability(pair.equivalence_p))
    return [signed(pair.ap.mean), _interval(pair.combined), *p, _mark(pair)]


def _interval(ends: Interval) -> str:
    return "–" if math.isnan(ends.low) else f"[{signed(ends.low)}, {signed(ends.high)}]"


def _mark(pair: PairSummary) -> Tex:
    mark = MARKS.get(pair.verdict, NO_MARK)
    below = pair.verdict in ("better", "worse") and pair.is_below_margin
    return Tex(mark + MARKS[EQUAL] if below else mark)
