"""From finished cells to what the report says: spreads, paired differences, intervals, verdicts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from utils.compare import stats
from utils.compare.plan import Plan
from utils.compare.resample import RESAMPLES, ApTable, ImageSpread, resample_images
from utils.compare.results import Outcome, fingerprint, read_detections
from utils.compare.wording import sentence
from utils.core.errors import UserError
from utils.data.dataset import DetectionDataset


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1) of a score over seeds, points; the deviation is NaN for one seed."""

    mean: float
    deviation: float
    count: int

    def text(self) -> str:
        if math.isnan(self.mean):
            return "–"
        return f"{self.mean:.2f}" + (
            "" if math.isnan(self.deviation) else f" ± {self.deviation:.2f}"
        )


@dataclass(frozen=True)
class Setting:
    """A setting with at least one finished training. Scores in points.

    Attributes:
        ap, ap50: over seeds. ap_image_error, ap50_image_error: standard errors over test images of the means.
        per_class: name -> (ap, ap50). latency: median ms of one picture. train_seconds: median. scores: seed -> AP.
    """

    name: str
    control_of: str | None
    params: int
    gflops: float
    latency: float
    train_seconds: float
    ap: Spread
    ap50: Spread
    ap_image_error: float
    ap50_image_error: float
    per_class: dict[str, tuple[Spread, Spread]]
    scores: dict[int, float]
    curves: list[list[dict[str, float]]]


@dataclass(frozen=True)
class Pair:
    """A setting against its reference. Differences in points, setting minus reference.

    Attributes:
        ap, ap50: over the seeds that both finished. images, images50: 95% bootstrap interval over test images of the
            mean difference. combined: for new seeds and new images. corrected_p, verdict: Holm, over all pairs.
        power: chance that so many seeds find a true difference of 1 AP. needed: seeds that find it in 4 of 5
            comparisons; needed_range: the same from the ends of the spread's 95% interval. None: more than 1000,
            or unknown. differences: seed -> AP difference. per_class: name -> AP difference.
    """

    name: str
    reference: str
    ap: stats.Paired
    ap50: stats.Paired
    images: tuple[float, float]
    images50: tuple[float, float]
    combined: tuple[float, float]
    corrected_p: float
    verdict: stats.Verdict
    power: float
    needed: int | None
    needed_range: tuple[int | None, int | None]
    differences: dict[int, float]
    per_class: dict[str, stats.Paired]
    sentence: str


@dataclass(frozen=True)
class Comparison:
    """All that a report tells. `failed`: (setting, seed) -> why. `splits`: setting -> its test pictures."""

    plan: Plan
    settings: list[Setting]
    pairs: list[Pair]
    failed: dict[tuple[str, int], str]
    outcomes: dict[tuple[str, int], Outcome]
    splits: Mapping[str, DetectionDataset]
    images: int
    resamples: int


def analyze(
    plan: Plan,
    outcomes: Sequence[Outcome],
    failed: Mapping[tuple[str, int], str],
    latency: Mapping[str, float],
    splits: Mapping[str, DetectionDataset],
    resamples: int = RESAMPLES,
) -> Comparison:
    """Compute every number of the report.

    Args:
        outcomes: of the finished cells. latency: setting -> ms. splits: setting -> its test pictures.

    Raises:
        UserError: the test images are not those that a cell was measured on.
    """
    known = {(outcome.cell.variant, outcome.cell.seed): outcome for outcome in outcomes}
    _refuse_changed_truth(outcomes, splits)
    names = [variant.name for variant in plan.variants if variant.name in splits]
    pairs = [
        (name, reference) for name, reference in plan.pairs if _common(plan, known, name, reference)
    ]
    images = len(next(iter(splits.values())).samples)
    spread = _over_images(plan, known, names, pairs, splits, resamples)
    return Comparison(
        plan=plan,
        settings=[
            _setting(plan, known, name, latency[name], spread, row)
            for row, name in enumerate(names)
        ],
        pairs=_pairs(plan, known, pairs, spread, len(names)),
        failed=dict(failed),
        outcomes=known,
        splits=splits,
        images=images,
        resamples=resamples,
    )


Known = Mapping[tuple[str, int], Outcome]


def _refuse_changed_truth(
    outcomes: Sequence[Outcome], splits: Mapping[str, DetectionDataset]
) -> None:
    prints = {name: fingerprint(split.samples) for name, split in splits.items()}
    for outcome in outcomes:
        if prints[outcome.cell.variant] != outcome.truth:
            raise UserError(
                f"{outcome.cell.folder}: the test images' labels have changed since; give another --out"
            )


def _common(plan: Plan, known: Known, *names: str) -> list[int]:
    """The seeds that all these settings have finished."""
    return [seed for seed in plan.seeds if all((name, seed) in known for name in names)]


def _over_images(
    plan: Plan,
    known: Known,
    names: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    splits: Mapping[str, DetectionDataset],
    resamples: int,
) -> ImageSpread:
    """Bootstrap rows: AP and AP50 of every setting, then of every pair's difference; means over seeds."""
    tables = {
        (name, seed): ApTable(
            splits[name].samples,
            read_detections(outcome.cell, splits[name].samples, splits[name].class_names),
            len(splits[name].class_names),
        )
        for (name, seed), outcome in known.items()
    }

    def statistic(weights: np.ndarray) -> np.ndarray:
        scores = {
            key: np.stack(table.ap(weights)[::-1]) for key, table in tables.items()
        }  # (2, B): AP, AP50

        def mean(name: str, seeds: Sequence[int]) -> np.ndarray:
            return np.mean([scores[name, seed] for seed in seeds], axis=0)

        rows = [mean(name, _common(plan, known, name)) for name in names]
        for name, reference in pairs:
            seeds = _common(plan, known, name, reference)
            rows.append(mean(name, seeds) - mean(reference, seeds))
        return np.concatenate(rows)

    return resample_images(statistic, len(next(iter(splits.values())).samples), resamples)


def _spread(values: Sequence[float]) -> Spread:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return Spread(float(np.mean(values)), deviation, len(values))


def _setting(
    plan: Plan, known: Known, name: str, latency: float, images: ImageSpread, row: int
) -> Setting:
    seeds = _common(plan, known, name)
    runs = [known[name, seed] for seed in seeds]
    classes = runs[0].per_class
    variant = next(variant for variant in plan.variants if variant.name == name)
    return Setting(
        name=name,
        control_of=variant.control_of,
        params=runs[0].params,
        gflops=runs[0].gflops,
        latency=latency,
        train_seconds=float(np.median([run.train_seconds for run in runs])),
        ap=_spread([run.ap for run in runs]),
        ap50=_spread([run.ap50 for run in runs]),
        ap_image_error=float(images.error[2 * row]),
        ap50_image_error=float(images.error[2 * row + 1]),
        per_class={
            label: (
                _spread([run.per_class[label][0] for run in runs]),
                _spread([run.per_class[label][1] for run in runs]),
            )
            for label in classes
        },
        scores={seed: run.ap for seed, run in zip(seeds, runs, strict=True)},
        curves=[run.curve for run in runs],
    )


def _pairs(
    plan: Plan, known: Known, pairs: Sequence[tuple[str, str]], images: ImageSpread, first_row: int
) -> list[Pair]:
    """Every pair, judged as one family."""
    per_pair = [_differences(plan, known, *pair) for pair in pairs]
    paired = [stats.paired(np.array(list(ap.values()))) for ap, _, _ in per_pair]
    judged = stats.verdicts(paired)
    family = sum(pair.seeds >= stats.MIN_SEEDS for pair in paired)
    built = []
    for place, ((name, reference), (ap, ap50, classes)) in enumerate(
        zip(pairs, per_pair, strict=True)
    ):
        row = 2 * (first_row + place)
        corrected, verdict = judged[place]
        over_images = float(images.low[row]), float(images.high[row])
        combined = stats.combined_interval(paired[place], over_images)
        power, needed, needed_range = _outlook(paired[place], max(family, 1))
        built.append(
            Pair(
                name=name,
                reference=reference,
                ap=paired[place],
                ap50=stats.paired(np.array(ap50)),
                images=over_images,
                images50=(float(images.low[row + 1]), float(images.high[row + 1])),
                combined=combined,
                corrected_p=corrected,
                verdict=verdict,
                power=power,
                needed=needed,
                needed_range=needed_range,
                differences=ap,
                per_class={
                    label: stats.paired(np.array(values)) for label, values in classes.items()
                },
                sentence=sentence(
                    name,
                    reference,
                    paired[place],
                    verdict,
                    corrected,
                    combined,
                    needed,
                    needed_range,
                ),
            )
        )
    return built


def _differences(
    plan: Plan, known: Known, name: str, reference: str
) -> tuple[dict[int, float], list[float], dict[str, list[float]]]:
    """AP by seed, AP50, and AP by class: setting minus reference."""
    both = {
        seed: (known[name, seed], known[reference, seed])
        for seed in _common(plan, known, name, reference)
    }
    ap = {seed: one.ap - other.ap for seed, (one, other) in both.items()}
    ap50 = [one.ap50 - other.ap50 for one, other in both.values()]
    classes = next(iter(both.values()))[0].per_class
    per_class = {
        label: [one.per_class[label][0] - other.per_class[label][0] for one, other in both.values()]
        for label in classes
    }
    return ap, ap50, per_class


def _outlook(
    pair: stats.Paired, family: int
) -> tuple[float, int | None, tuple[int | None, int | None]]:
    """Power for 1 AP, seeds needed, and their range; unknown without a spread."""
    if not pair.spread > stats.NO_SPREAD:
        return math.nan, None, (None, None)
    level = stats.ALPHA / family
    low, high = (
        stats.seeds_needed(end, alpha=level) for end in stats.spread_range(pair.spread, pair.seeds)
    )
    power = float(stats.power(pair.seeds, pair.spread, alpha=level))
    return power, stats.seeds_needed(pair.spread, alpha=level), (low, high)
