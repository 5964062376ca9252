"""From finished trials to the numbers of a report: means, paired differences, verdicts."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np

from utils.compare.planning.plan import Plan, Setting
from utils.compare.planning.record import (
    Differences,
    Entry,
    count_family,
    count_looks,
    make_entry,
)
from utils.compare.planning.registration import Registration
from utils.compare.statistics import paired
from utils.compare.statistics.bootstrap import (
    RESAMPLES,
    BootstrapSummary,
    Groups,
    WeightedAP,
    bootstrap_images,
)
from utils.compare.statistics.group_sequential import ONLY_LOOK, Look
from utils.compare.statistics.paired import Interval, Judgement, PairedDifference, Verdict
from utils.compare.trials.failures import Failure, FailureKind
from utils.compare.trials.latency import Latency
from utils.compare.trials.results import TestImages, TrialResult, fingerprint, read_detections
from utils.core.errors import UserError
from utils.engine.progress_text import note_if_rising

Results = Mapping[tuple[str, int], TrialResult]  # by setting and seed
SeedRange = tuple[int | None, int | None]


@dataclass(frozen=True)
class Spread:
    """A score over seeds, in points.

    Attributes:
        mean: mean over seeds.
        deviation: standard deviation (n - 1), NaN for one seed.
        count: number of seeds.
    """

    mean: float
    deviation: float
    count: int


@dataclass(frozen=True)
class SettingSummary:
    """A setting with at least one finished trial. Scores are in points.

    Attributes:
        name: name of the setting.
        control_of: name of the setting for which this one is the fair control.
        failed: number of failed trials.
        params: number of parameters; None if unknown.
        gflops: 10^9 operations per image; NaN if unknown, as all that follow.
        latency: median milliseconds per image.
        latency_interval: its 95% interval.
        train_seconds: training time, median over seeds; NaN if a trial shared its machine.
        rising: number of trials whose AP was still rising when they ended.
        ap: AP over seeds.
        ap50: AP50 over seeds.
        ap_image_error: standard error of the mean AP over test images.
        ap50_image_error: standard error of the mean AP50 over test images.
        per_class: name -> (ap, ap50).
        curves: learning curve of each seed.
    """

    name: str
    control_of: str | None
    failed: int
    params: int | None
    gflops: float
    latency: float
    latency_interval: Interval
    train_seconds: float
    rising: int
    ap: Spread
    ap50: Spread
    ap_image_error: float
    ap50_image_error: float
    per_class: dict[str, tuple[Spread, Spread]]
    curves: list[list[dict[str, float]]]


@dataclass(frozen=True)
class PairSummary:
    """A setting and its reference. Differences are setting minus reference, in points.

    Attributes:
        name: name of the setting.
        reference: name of the setting that it is compared with.
        ap: AP differences over all seeds but those lost to the machine; a trial that diverged
            counts as 0 AP.
        ap50: AP50 differences over the same seeds.
        means: AP of the setting and of the reference over the same seeds.
        planned: number of seeds of the plan, up to the look.
        diverged: number of trials of the setting, and of the reference, that diverged.
        errors: number of trials of both that failed with an error of unknown cause.
        survivors: AP differences over the seeds that both finished.
        images: 95% bootstrap interval of the mean AP difference over test images.
        images50: the same for AP50.
        combined: 95% interval of the mean AP difference for new seeds and new images.
        corrected_p: p corrected by Holm's method over the family of tests.
        equivalence_p: p of a difference of at least the margin, corrected in the same way.
        margin: the margin of the plan, in points.
        min_seeds: the fewest seeds that get a verdict.
        verdict: verdict on AP.
        look: the look that it was judged at.
        power: probability that so many seeds find a true difference of 1 AP; NaN if unknown.
        needed: seeds that find it in four of five comparisons; None: more than 1000, or unknown.
        needed_range: the same for both ends of the spread's 95% interval.
        differences: seed -> AP difference.
        outliers: seed -> AP difference, of those far from the others.
        per_class: name -> AP difference over the seeds that both finished.
    """

    name: str
    reference: str
    ap: PairedDifference
    ap50: PairedDifference
    means: tuple[float, float]
    planned: int
    diverged: tuple[int, int]
    errors: int
    survivors: PairedDifference
    images: Interval
    images50: Interval
    combined: Interval
    corrected_p: float
    equivalence_p: float
    margin: float | None
    min_seeds: int
    verdict: Verdict
    look: Look
    power: float
    needed: int | None
    needed_range: SeedRange
    differences: dict[int, float]
    outliers: dict[int, float]
    per_class: dict[str, PairedDifference]

    @property
    def look_number(self) -> int | None:
        """Which declared look it was judged at, from 1; None: none were declared."""
        return self.look.position + 1 if self.look.schedule else None

    @property
    def is_below_margin(self) -> bool:
        """Whether the difference is less than the margin, be it proven or not."""
        return self.equivalence_p <= paired.ALPHA

    @property
    def is_below_margin_on_new_images(self) -> bool:
        """Whether the same can be said of other test images."""
        margin = self.margin or 0.0
        inside = -margin < self.combined.low and self.combined.high < margin
        return self.is_below_margin and inside


@dataclass(frozen=True)
class Comparison:
    """Everything that a report shows.

    Attributes:
        plan: the plan of the comparison.
        settings: in the plan's order.
        pairs: in the plan's order.
        failed: (setting, seed) -> why it failed.
        results: results of the finished trials.
        splits: setting -> its test images.
        images: number of test images.
        groups: what the bootstrap drew; None: single images.
        resamples: number of bootstrap resamples.
        look: how often different results were shown in the folder, this time included.
        family: number of tests ever made in the folder, which the verdicts are corrected for.
        registration: the file of the plan.
    """

    plan: Plan
    settings: list[SettingSummary]
    pairs: list[PairSummary]
    failed: dict[tuple[str, int], Failure]
    results: Results
    splits: Mapping[str, TestImages]
    images: int
    groups: Groups | None
    resamples: int
    look: int
    family: int
    registration: Registration | None = None

    @property
    def tests(self) -> dict[tuple[str, str], Differences]:
        """(setting, reference) -> AP differences, as the record keeps them."""
        return {(pair.name, pair.reference): pair.differences for pair in self.pairs}


def analyze(
    plan: Plan,
    results: Sequence[TrialResult],
    failed: Mapping[tuple[str, int], Failure],
    latency: Mapping[str, Latency],
    splits: Mapping[str, TestImages],
    history: Sequence[Entry] = (),
    resamples: int = RESAMPLES,
    groups: Groups | None = None,
) -> Comparison:
    """Compute every number of the report.

    Args:
        plan: the plan of the comparison.
        results: results of the finished trials.
        failed: (setting, seed) -> why it failed.
        latency: setting -> latency.
        splits: setting with a finished trial -> its test images.
        history: the record of the folder.
        resamples: number of bootstrap resamples.
        groups: test images that belong together; None: none do.

    Raises:
        UserError: the test images differ from those that a trial was evaluated on.
    """
    _refuse_changed_truth(results, splits)
    by_key = {(result.trial.setting, result.trial.seed): result for result in results}
    analysis = _Analysis(plan, by_key, failed, splits)
    images = len(next(iter(splits.values())).samples)
    bootstrap = bootstrap_images(analysis.bootstrap_statistic(), images, resamples, groups)
    settings = []
    for index, setting in enumerate(analysis.settings):
        count = sum(name == setting.name for name, _ in failed)
        summary = analysis.summarize_setting(
            setting, count, latency[setting.name], bootstrap.error[2 * index : 2 * index + 2]
        )
        settings.append(summary)
    record = analysis.record(history)
    family = count_family(record)
    return Comparison(
        plan=plan,
        settings=settings,
        pairs=analysis.summarize_pairs(bootstrap, family),
        failed=dict(failed),
        results=by_key,
        splits=splits,
        images=images,
        groups=groups,
        resamples=resamples,
        look=count_looks(record),
        family=family,
    )


def find_verdicts(
    plan: Plan,
    results: Sequence[TrialResult],
    failed: Mapping[tuple[str, int], Failure],
    history: Sequence[Entry],
) -> dict[tuple[str, str], Verdict]:
    """(setting, reference) -> the verdict that `analyze` would give, without all else."""
    by_key = {(result.trial.setting, result.trial.seed): result for result in results}
    analysis = _Analysis(plan, by_key, failed, {})
    judged = analysis.judge(count_family(analysis.record(history)))
    return {pair: each.verdict for pair, each in zip(analysis.pairs, judged, strict=True)}


def _refuse_changed_truth(results: Sequence[TrialResult], splits: Mapping[str, TestImages]) -> None:
    fingerprints = {name: fingerprint(split.samples) for name, split in splits.items()}
    for result in results:
        if fingerprints[result.trial.setting] != result.truth:
            raise UserError(
                f"{result.trial.folder}: the test images' labels have changed since;"
                " give another --out"
            )


class _Analysis:
    """Finished settings, pairs of them with a common seed, and their numbers."""

    def __init__(
        self,
        plan: Plan,
        results: Results,
        failed: Mapping[tuple[str, int], Failure],
        splits: Mapping[str, TestImages],
    ) -> None:
        self.plan = plan
        self.results = results
        self.failed = failed
        self.splits = splits
        self.settings = [setting for setting in plan.settings if setting.name in splits]
        self.pairs = [pair for pair in plan.pairs if self.scored_seeds(*pair)]
        self.differences_by_pair = {
            pair: self.differences(*pair, attrgetter("ap")) for pair in self.pairs
        }
        self.paired = [
            paired.paired_difference(list(differences.values()), self.look(*pair))
            for pair, differences in self.differences_by_pair.items()
        ]

    def record(self, history: Sequence[Entry]) -> list[Entry]:
        """The record of the folder when these results are shown."""
        now = make_entry("plan", self.plan)
        return [*history, now, make_entry("look", self.plan, self.differences_by_pair)]

    def look(self, *names: str) -> Look:
        """The declared look that a pair is judged at."""
        looks = self.plan.looks
        return Look(looks, looks.index(len(self.plan.seeds_of(*names)))) if looks else ONLY_LOOK

    def finished_seeds(self, *names: str) -> list[int]:
        """The seeds that all these settings have finished."""
        seeds = []
        for seed in self.plan.seeds_of(*names):
            if all((name, seed) in self.results for name in names):
                seeds.append(seed)
        return seeds

    def scored_seeds(self, *names: str) -> list[int]:
        """The seeds that each of these settings has finished, or on which it diverged."""
        seeds = []
        for seed in self.plan.seeds_of(*names):
            if all(self.is_scored(name, seed) for name in names):
                seeds.append(seed)
        return seeds

    def is_scored(self, name: str, seed: int) -> bool:
        """Whether a trial has a score: its own, or 0 because it diverged."""
        return (name, seed) in self.results or self.has_failed(name, seed, "diverged")

    def has_failed(self, name: str, seed: int, kind: FailureKind) -> bool:
        """Whether a trial failed in this way."""
        failure = self.failed.get((name, seed))
        return failure is not None and failure.kind == kind

    def count_failed(self, pair: tuple[str, str], kind: FailureKind) -> tuple[int, int]:
        """The number of trials of a setting, and of its reference, that failed in this way."""
        seeds = self.plan.seeds_of(*pair)
        name, reference = pair
        return (
            sum(self.has_failed(name, seed, kind) for seed in seeds),
            sum(self.has_failed(reference, seed, kind) for seed in seeds),
        )

    def bootstrap_statistic(self) -> Callable[[np.ndarray], np.ndarray]:
        """The function that `bootstrap_images` takes.

        It computes two rows for each setting and then for each pair: AP and AP50, or their
        differences, as means over seeds.
        """
        scorers = {}
        for key, result in self.results.items():
            split = self.splits[key[0]]
            detections = read_detections(result.trial, split.samples, split.class_names)
            scorers[key] = WeightedAP(split.samples, detections, len(split.class_names))

        def statistic(weights: np.ndarray) -> np.ndarray:
            scores = {}
            for key, scorer in scorers.items():
                scores[key] = np.stack(scorer.compute(weights))  # (2, B)

            diverged = np.zeros((2, len(weights)))

            def mean(name: str, seeds: Sequence[int]) -> np.ndarray:
                return np.mean([scores.get((name, seed), diverged) for seed in seeds], axis=0)

            rows = []
            for setting in self.settings:
                rows.append(mean(setting.name, self.finished_seeds(setting.name)))
            for name, reference in self.pairs:
                seeds = self.scored_seeds(name, reference)
                rows.append(mean(name, seeds) - mean(reference, seeds))
            return np.concatenate(rows)

        return statistic

    def summarize_setting(
        self, setting: Setting, failed: int, latency: Latency, image_errors: np.ndarray
    ) -> SettingSummary:
        """Means over finished seeds; `image_errors` are those of AP and AP50."""
        seeds = self.finished_seeds(setting.name)
        results = [self.results[setting.name, seed] for seed in seeds]
        per_class = {}
        for label in results[0].per_class:
            ap = _spread([result.per_class[label][0] for result in results])
            ap50 = _spread([result.per_class[label][1] for result in results])
            per_class[label] = (ap, ap50)
        return SettingSummary(
            name=setting.name,
            control_of=setting.control_of,
            failed=failed,
            params=results[0].params,
            gflops=results[0].gflops,
            latency=latency.median,
            latency_interval=latency.interval,
            train_seconds=_train_seconds(results),
            rising=sum(note_if_rising(result.curve) is not None for result in results),
            ap=_spread([result.ap for result in results]),
            ap50=_spread([result.ap50 for result in results]),
            ap_image_error=float(image_errors[0]),
            ap50_image_error=float(image_errors[1]),
            per_class=per_class,
            curves=[result.curve for result in results],
        )

    def judge(self, family: int) -> list[Judgement]:
        """What the tests say of all pairs, as members of a family of tests."""
        complete = [not any(self.count_failed(pair, "error")) for pair in self.pairs]
        looks = [self.look(*pair) for pair in self.pairs]
        return paired.judge(self.paired, family, complete, self.plan.margin, looks)

    def summarize_pairs(self, bootstrap: BootstrapSummary, family: int) -> list[PairSummary]:
        """All pairs, judged as members of a family of tests."""
        judged = self.judge(family)
        summaries = []
        for index, (name, reference) in enumerate(self.pairs):
            row = 2 * (len(self.settings) + index)
            images = bootstrap.interval(row)
            ap, look = self.paired[index], self.look(name, reference)
            ap50 = self.differences(name, reference, attrgetter("ap50"))
            by_seed = self.differences_by_pair[name, reference]
            finished = self.finished_seeds(name, reference)
            survivors = [by_seed[seed] for seed in finished]
            far = [finished[position] for position in paired.find_outliers(survivors)]
            power, needed, needed_range = _outlook(ap, family, look)
            summary = PairSummary(
                name=name,
                reference=reference,
                ap=ap,
                ap50=paired.paired_difference(list(ap50.values()), look),
                means=(self.mean_ap(name, ap50), self.mean_ap(reference, ap50)),
                planned=len(self.plan.seeds_of(name, reference)),
                diverged=self.count_failed((name, reference), "diverged"),
                errors=sum(self.count_failed((name, reference), "error")),
                survivors=paired.paired_difference(survivors),
                images=images,
                images50=bootstrap.interval(row + 1),
                combined=paired.combine_intervals(ap.mean, ap.interval, images),
                corrected_p=judged[index].p,
                equivalence_p=judged[index].equivalence_p,
                margin=self.plan.margin,
                min_seeds=paired.min_seeds(family),
                verdict=judged[index].verdict,
                look=look,
                power=power,
                needed=needed,
                needed_range=needed_range,
                differences=by_seed,
                outliers={seed: by_seed[seed] for seed in far},
                per_class=self.class_differences(name, reference),
            )
            summaries.append(summary)
        return summaries

    def differences(
        self, name: str, reference: str, score: Callable[[TrialResult], float]
    ) -> dict[int, float]:
        """Seed -> difference of a score, setting minus reference."""
        differences = {}
        for seed in self.scored_seeds(name, reference):
            difference = self.score(name, seed, score) - self.score(reference, seed, score)
            differences[seed] = difference
        return differences

    def score(self, name: str, seed: int, score: Callable[[TrialResult], float]) -> float:
        """A trial's score; 0 if it diverged."""
        result = self.results.get((name, seed))
        return 0.0 if result is None else score(result)

    def mean_ap(self, name: str, seeds: Iterable[int]) -> float:
        """Mean AP over seeds that are scored."""
        return float(np.mean([self.score(name, seed, attrgetter("ap")) for seed in seeds]))

    def class_differences(self, name: str, reference: str) -> dict[str, PairedDifference]:
        """Class -> AP difference."""
        labels = next(iter(self.results.values())).per_class
        pairs = {}
        for label in labels:
            differences = []
            for seed in self.finished_seeds(name, reference):
                result, other = self.results[name, seed], self.results[reference, seed]
                differences.append(result.per_class[label][0] - other.per_class[label][0])
            pairs[label] = paired.paired_difference(differences, self.look(name, reference))
        return pairs


def _train_seconds(results: Sequence[TrialResult]) -> float:
    if not all(result.is_alone for result in results):
        return math.nan
    return float(np.median([result.train_seconds for result in results]))


def _spread(values: Sequence[float]) -> Spread:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return Spread(float(np.mean(values)), deviation, len(values))


def _outlook(
    pair: PairedDifference, family: int, look: Look
) -> tuple[float, int | None, SeedRange]:
    """Power for 1 AP, seeds needed, and their range; unknown without a spread."""
    if not pair.spread > paired.NO_SPREAD:
        return math.nan, None, (None, None)
    power = float(paired.power(pair.seeds, pair.spread, family=family, look=look))
    ends = paired.spread_interval(pair.spread, pair.seeds)
    return (
        power,
        paired.seeds_needed(pair.spread, family=family),
        (
            paired.seeds_needed(ends.low, family=family),
            paired.seeds_needed(ends.high, family=family),
        ),
    )
