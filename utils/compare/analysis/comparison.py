"""What a report shows: the numbers of settings and of their differences."""

from collections.abc import Mapping
from dataclasses import dataclass

from utils.compare.analysis.scores import Results
from utils.compare.planning.plan import Plan
from utils.compare.planning.record import Differences
from utils.compare.planning.registration import Registration
from utils.compare.statistics import paired
from utils.compare.statistics.bootstrap import Groups
from utils.compare.statistics.group_sequential import Look
from utils.compare.statistics.paired import Interval, PairedDifference, Verdict
from utils.compare.trials.failures import Failure
from utils.compare.trials.results import TestImages

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
