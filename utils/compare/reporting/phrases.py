"""Numbers and findings of a report in words."""

import math
from statistics import median

from utils.compare.analysis.comparison import Comparison, PairSummary, Spread
from utils.compare.planning.facts import Foreign
from utils.compare.statistics.paired import EQUAL, MAX_SEEDS, NO_SPREAD, NO_VERDICT, Interval
from utils.compare.trials.failures import FailureKind
from utils.metrics.coco import MAX_DETECTIONS

NONE = "–"
LEAST_MARGINS = 5  # AP that is fewer margins says little about equality
CAUSES: dict[FailureKind, str] = {
    "diverged": "diverged",
    "infrastructure": "the machine",
    "error": "an error",
    "missing": "no file",
}


def headline(pair: PairSummary) -> str:
    """The verdict in one line."""
    seeds = f"on {pair.survivors.seeds} of {pair.planned} seeds"
    if pair.verdict in ("better", "worse"):
        limit = ""
        if pair.is_below_margin:
            limit = f", but by less than the margin of {pair.margin:g} AP"
        return (
            f"{pair.name} is {pair.verdict} than {pair.reference} by {abs(pair.ap.mean):.2f} AP"
            f"{limit} ({seeds})."
        )
    difference = f"({signed(pair.ap.mean)} AP {seeds})"
    if pair.verdict == EQUAL:
        return (
            f"{pair.name} and {pair.reference} are practically equal: they differ by less than"
            f" {pair.margin:g} AP {difference}."
        )
    if pair.ap.seeds < pair.min_seeds:
        return f"{pair.name} against {pair.reference}: too few seeds for a verdict {difference}."
    return f"{pair.name} against {pair.reference}: {pair.verdict} {difference}."


def details(pair: PairSummary) -> str:
    """What the verdict rests on, and what it does not cover, in a few sentences."""
    parts = [_evidence(pair), *_failures(pair)]
    if pair.verdict in ("better", "worse"):
        parts += _other_images(pair.combined)
    elif pair.verdict == EQUAL:
        parts.append(_equal_on_other_images(pair))
    elif not pair.errors:
        parts.append(_outlook(pair))
    return " ".join([*parts, *_stop(pair)])


def _stop(pair: PairSummary) -> list[str]:
    """Whether the pair goes on after a declared look."""
    if not pair.look.schedule:
        return []
    last = pair.look.schedule[-1]
    at = f"look {look_count(pair)}, {seeds_text(pair.planned)}"
    if pair.verdict not in NO_VERDICT:
        return [f"Stopped at {at}: {pair.verdict}."]
    if pair.planned == last:
        return [f"Without a verdict after {at}, the last."]
    return [f"No verdict yet at {at}: it goes on, up to {seeds_text(last)}."]


def look_count(pair: PairSummary) -> str:
    """`2 of 5`: the declared look that a pair was judged at."""
    return f"{pair.look.position + 1} of {len(pair.look.schedule)}"


def looks_sentence(comparison: Comparison) -> str:
    """What declared looks have saved, or may save."""
    plan = comparison.plan
    count, most = len(plan.trials), plan.most_trials
    at = f"Look {plan.look_number} of {len(plan.looks)}"
    is_open = any(pair.verdict in NO_VERDICT for pair in comparison.pairs)
    if is_open and len(plan.seeds) < plan.looks[-1]:
        return f"{at}: {count} trials so far, of {most} at most."
    return f"{at}, the end: {count} trials instead of {most}, {most - count} saved."


def seeds_text(count: int) -> str:
    """`5 seeds`."""
    return "one seed" if count == 1 else f"{count} seeds"


def sentence(pair: PairSummary) -> str:
    """The verdict and its details."""
    return f"{headline(pair)} {details(pair)}"


def _evidence(pair: PairSummary) -> str:
    if pair.ap.seeds < 2:
        return "One seed: no interval."
    text = (
        f"95% interval for new seeds and new images {interval(pair.combined)}, for new seeds on"
        f" these images {interval(pair.ap.interval)}"
    )
    if not math.isnan(pair.corrected_p):
        text += f"; corrected p {probability(pair.corrected_p)}"
    if not math.isnan(pair.equivalence_p):
        text += f", p of a difference of {pair.margin:g} AP {probability(pair.equivalence_p)}"
    return f"{text}."


def _failures(pair: PairSummary) -> list[str]:
    """How many trials diverged or failed, and what the others say alone; outliers."""
    parts = []
    for name, count in zip((pair.name, pair.reference), pair.diverged, strict=True):
        if count:
            parts.append(f"{name} diverged on {count} of {pair.planned} seeds (scored 0).")
    if parts and pair.survivors.seeds:
        parts.append(
            f"The {pair.survivors.seeds} seeds that both finished differ by"
            f" {signed(pair.survivors.mean)} AP; that is no verdict, as they are selected."
        )
    if pair.outliers:
        shown = ", ".join(f"seed {seed} ({signed(far)})" for seed, far in pair.outliers.items())
        middle = signed(median(pair.differences.values()))
        parts.append(f"Outliers: {shown}, far from the median difference of {middle} AP.")
    if pair.errors:
        parts.append(
            f"No verdict while {pair.errors} of its trials failed with an error: fix it and run"
            " the command again."
        )
    return parts


def _other_images(combined: Interval) -> list[str]:
    if not combined.low <= 0 <= combined.high:
        return []
    return [
        "That holds for these test images; on others it may not: the interval for new images"
        " contains zero."
    ]


def _equal_on_other_images(pair: PairSummary) -> str:
    if pair.is_below_margin_on_new_images:
        return "That holds on new images, too: the interval lies inside the margin."
    return (
        "That holds for these test images; on others the difference may be larger: the interval"
        " for new images does not lie inside the margin."
    )


def _outlook(pair: PairSummary) -> str:
    seeds = pair.ap.seeds
    if seeds < 2:
        return "One seed has no spread: nothing can be said about the next one."
    if pair.ap.spread <= NO_SPREAD:
        return "All seeds differ by exactly the same amount, so they do not repeat independently."
    no_verdict = ""
    if seeds < pair.min_seeds:
        no_verdict = f"With {seeds} seeds there is no verdict (at least {pair.min_seeds}). "
    low, high = pair.needed_range
    span = ""
    if low != high:
        span = (
            f" ({seed_count(low)} to {seed_count(high)}, as {seeds} seeds do not determine the"
            " spread more precisely)"
        )
    return (
        f"{no_verdict}To see a difference of 1 AP in four of five comparisons,"
        f" {seed_count(pair.needed)} seeds would be needed{span}."
    )


def notes(comparison: Comparison) -> list[str]:
    """What a reader of the verdicts should know about all of them."""
    plan, found = comparison.plan, []
    is_extra = comparison.look > 1
    if plan.looks:
        is_extra = comparison.family > len(plan.pairs)
    if is_extra:
        again = "" if plan.looks else f"This is look {comparison.look} at results in this folder. "
        found.append(
            f"{again}The correction counts all {comparison.family} tests ever made here, not only"
            " those shown."
        )
    if plan.search is not None:
        found.append(
            f"These settings are the best of {len(plan.search.gains)} candidates of a search, which"
            " saw training images only. The verdicts rest on other seeds and on the test images, so"
            " that the choice does not flatter them."
        )
    registration = comparison.registration
    if registration is not None and registration.changes and registration.begun:
        found.append(
            f"The plan was changed after {registration.begun} trials had begun:"
            f" {'; '.join(registration.changes)}."
        )
    for setting in plan.settings:
        keys = plan.unpaired_keys(setting)
        if keys:
            found.append(
                f"{setting.name} differs from {plan.baseline} in {', '.join(keys)}: a seed no"
                " longer gives both the same batches or the same scoring, so the pairing is only"
                " partial, and the difference may come from there."
            )
    if plan.foreign:
        found += plan.foreign.remarks
    ap = max(setting.ap.mean for setting in comparison.settings)
    if plan.margin is not None and ap < LEAST_MARGINS * plan.margin:
        found.append(
            f"The margin of {plan.margin:g} AP is large against the AP reached, {ap:.2f}: networks"
            " that have learned little are practically equal whatever their settings."
        )
    rising = [setting for setting in comparison.settings if setting.rising]
    if rising:
        shown = ", ".join(f"{each.name} ({each.rising} of {each.ap.count})" for each in rising)
        found.append(
            f"AP was still rising at the last epoch in trainings of {shown}: longer trainings may"
            " change the order."
        )
    return found


def conditions(comparison: Comparison) -> list[tuple[str, str]]:
    """(title, text) of what the numbers were measured with."""
    if comparison.plan.foreign:
        return _foreign_conditions(comparison, comparison.plan.foreign)
    plan, config = comparison.plan, comparison.plan.settings[0].config
    data, train, limits = config.data, config.train, config.eval
    machines = sorted({result.machine for result in comparison.results.values()} - {""})
    chosen = f", epoch chosen on '{data.val}'" if plan.chooses_epoch else ""
    height, width = config.input_size
    voting = "none" if limits.vote_iou >= 1 else f"above IoU {limits.vote_iou:g}"
    return [
        *_plan_file(comparison),
        ("Machine", " | ".join(machines) or NONE),
        (
            "Data",
            f"{data.format} {data.root}: trained on '{data.train}'{chosen}, scored on"
            f" '{data.test or data.val}', {comparison.images} images",
        ),
        (
            "Training",
            f"epochs {train.epochs}, batch size {train.batch_size}, {train.optimizer}, input"
            f" {width}x{height}, precision {config.precision}; keys that a setting changes apart",
        ),
        (
            "Detections",
            f"score at least {limits.score:g}, NMS at IoU {limits.nms_iou:g}, box voting {voting},"
            f" at most {limits.max_detections} per image; objects marked difficult count like all"
            " others",
        ),
    ]


def _foreign_conditions(comparison: Comparison, foreign: Foreign) -> list[tuple[str, str]]:
    grouped = ""
    if comparison.groups:
        grouped = f", in {comparison.groups.count} groups by {comparison.groups.key}"
    return [
        ("Data", f"{foreign.truth}, {comparison.images} images{grouped}"),
        ("Training", "by other programs; what they had in common is not known here"),
        (
            "Detections",
            f"{foreign.folder}; the {MAX_DETECTIONS} best of each image and class count, as in"
            f" COCO, {foreign.uncounted:,} do not; boxes are neither clipped nor filtered",
        ),
    ]


def _plan_file(comparison: Comparison) -> list[tuple[str, str]]:
    registration = comparison.registration
    if registration is None:
        return []
    when = "before the first trial"
    if comparison.plan.foreign:
        when = "when its detections existed already"
    elif registration.begun:
        when = f"after {registration.begun} trials had begun"
    text = (
        f"{registration.file}, written {registration.time}, {when}; SHA-256 {registration.sha256}"
    )
    return [("Plan", text)]


def seed_count(count: int | None) -> str:
    """A number of seeds; None means more than `MAX_SEEDS`."""
    return f"more than {MAX_SEEDS}" if count is None else str(count)


def number(value: float, digits: int = 2) -> str:
    """A number with a fixed number of digits."""
    return NONE if math.isnan(value) else f"{value:.{digits}f}"


def signed(value: float, digits: int = 2) -> str:
    """A difference: `+0.31`, `−1.20`; never `−0.00`."""
    if math.isnan(value):
        return NONE
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "−")


def spread(value: Spread) -> str:
    """`41.20 ± 0.35`."""
    deviation = "" if math.isnan(value.deviation) else f" ± {value.deviation:.2f}"
    return NONE if math.isnan(value.mean) else f"{value.mean:.2f}{deviation}"


def percent(value: float) -> str:
    """A fraction as `80%`."""
    return NONE if math.isnan(value) else f"{100 * value:.0f}%"


def interval(ends: Interval) -> str:
    """`−0.63 to +0.77`."""
    if math.isnan(ends.low) or math.isnan(ends.high):
        return NONE
    return f"{signed(ends.low)} to {signed(ends.high)}"


def probability(value: float) -> str:
    """A p value."""
    if math.isnan(value):
        return NONE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
