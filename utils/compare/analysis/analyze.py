"""From finished trials to the numbers of a report: means, paired differences, verdicts."""

import math
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter

import numpy as np

from utils.compare.analysis.comparison import (
    Comparison,
    PairSummary,
    SeedRange,
    SettingSummary,
    Spread,
)
from utils.compare.analysis.scores import Scores
from utils.compare.planning.plan import Plan, Setting
from utils.compare.planning.record import Entry, count_family, count_looks, make_entry
from utils.compare.statistics import paired
from utils.compare.statistics.bootstrap import (
    RESAMPLES,
    BootstrapSummary,
    Groups,
    WeightedAP,
    bootstrap_images,
)
from utils.compare.statistics.group_sequential import ONLY_LOOK, Look
from utils.compare.statistics.paired import Judgement, PairedDifference, Verdict
from utils.compare.trials.failures import Failure
from utils.compare.trials.latency import Latency
from utils.compare.trials.results import TestImages, TrialResult, fingerprint, read_detections
from utils.core.errors import UserError
from utils.engine.progress_text import note_if_rising

AP = attrgetter("ap")
AP50 = attrgetter("ap50")


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
    analysis = _Analysis(plan, _scores(plan, results, failed))
    settings = [setting for setting in plan.settings if setting.name in splits]
    images = len(next(iter(splits.values())).samples)
    statistic = _bootstrap_statistic(analysis, settings, splits)
    bootstrap = bootstrap_images(statistic, images, resamples, groups)
    record = analysis.record(history)
    family = count_family(record)
    return Comparison(
        plan=plan,
        settings=_summarize_settings(analysis.scores, settings, latency, bootstrap),
        pairs=analysis.summarize_pairs(bootstrap, 2 * len(settings), family),
        failed=dict(failed),
        results=analysis.scores.results,
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
    analysis = _Analysis(plan, _scores(plan, results, failed))
    judged = analysis.judge(count_family(analysis.record(history)))
    return {pair: each.verdict for pair, each in zip(analysis.pairs, judged, strict=True)}


def _scores(
    plan: Plan, results: Sequence[TrialResult], failed: Mapping[tuple[str, int], Failure]
) -> Scores:
    by_key = {(result.trial.setting, result.trial.seed): result for result in results}
    return Scores(plan, by_key, failed)


def _refuse_changed_truth(results: Sequence[TrialResult], splits: Mapping[str, TestImages]) -> None:
    fingerprints = {name: fingerprint(split.samples) for name, split in splits.items()}
    for result in results:
        if fingerprints[result.trial.setting] != result.truth:
            raise UserError(
                f"{result.trial.folder}: the test images' labels have changed since;"
                " give another --out"
            )


class _Analysis:
    """The plan's pairs of settings with a common seed, and their numbers."""

    def __init__(self, plan: Plan, scores: Scores) -> None:
        self.plan = plan
        self.scores = scores
        self.pairs = [pair for pair in plan.pairs if scores.scored_seeds(*pair)]
        self.differences = {pair: scores.differences(*pair, AP) for pair in self.pairs}
        self.paired = [
            paired.paired_difference(list(differences.values()), self.look(*pair))
            for pair, differences in self.differences.items()
        ]

    def record(self, history: Sequence[Entry]) -> list[Entry]:
        """The record of the folder when these results are shown."""
        now = make_entry("plan", self.plan)
        return [*history, now, make_entry("look", self.plan, self.differences)]

    def look(self, *names: str) -> Look:
        """The declared look that a pair is judged at."""
        looks = self.plan.looks
        return Look(looks, looks.index(len(self.plan.seeds_of(*names)))) if looks else ONLY_LOOK

    def judge(self, family: int) -> list[Judgement]:
        """What the tests say of all pairs, as members of a family of tests."""
        complete = [not any(self.scores.count_failed(pair, "error")) for pair in self.pairs]
        looks = [self.look(*pair) for pair in self.pairs]
        return paired.judge(self.paired, family, complete, self.plan.margin, looks)

    def summarize_pairs(
        self, bootstrap: BootstrapSummary, row: int, family: int
    ) -> list[PairSummary]:
        """All pairs, judged as members of a family of tests; `row` is their first row."""
        judged = self.judge(family)
        summaries = []
        for index, judgement in enumerate(judged):
            summaries.append(
                self.summarize_pair(index, judgement, bootstrap, row + 2 * index, family)
            )
        return summaries

    def summarize_pair(
        self,
        index: int,
        judgement: Judgement,
        bootstrap: BootstrapSummary,
        row: int,
        family: int,
    ) -> PairSummary:
        """All numbers of a pair; `row` of the bootstrap is AP, the next one AP50."""
        pair = name, reference = self.pairs[index]
        scores, look, ap = self.scores, self.look(*pair), self.paired[index]
        images = bootstrap.interval(row)
        ap50 = scores.differences(*pair, AP50)
        by_seed = self.differences[pair]
        finished = scores.finished_seeds(*pair)
        survivors = [by_seed[seed] for seed in finished]
        far = [finished[position] for position in paired.find_outliers(survivors)]
        power, needed, needed_range = _outlook(ap, family, look)
        return PairSummary(
            name=name,
            reference=reference,
            ap=ap,
            ap50=paired.paired_difference(list(ap50.values()), look),
            means=(scores.mean(name, by_seed, AP), scores.mean(reference, by_seed, AP)),
            planned=len(self.plan.seeds_of(*pair)),
            diverged=scores.count_failed(pair, "diverged"),
            errors=sum(scores.count_failed(pair, "error")),
            survivors=paired.paired_difference(survivors),
            images=images,
            images50=bootstrap.interval(row + 1),
            combined=paired.combine_intervals(ap.mean, ap.interval, images),
            corrected_p=judgement.p,
            equivalence_p=judgement.equivalence_p,
            margin=self.plan.margin,
            min_seeds=paired.min_seeds(family),
            verdict=judgement.verdict,
            look=look,
            power=power,
            needed=needed,
            needed_range=needed_range,
            differences=by_seed,
            outliers={seed: by_seed[seed] for seed in far},
            per_class={
                label: paired.paired_difference(differences, look)
                for label, differences in scores.class_differences(*pair).items()
            },
        )


def _bootstrap_statistic(
    analysis: _Analysis, settings: Sequence[Setting], splits: Mapping[str, TestImages]
) -> Callable[[np.ndarray], np.ndarray]:
    """The function that `bootstrap_images` takes.

    It computes two rows for each setting and then for each pair: AP and AP50, or their
    differences, as means over seeds.
    """
    finished, scorers = analysis.scores, {}
    for key, result in finished.results.items():
        split = splits[key[0]]
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
        for setting in settings:
            rows.append(mean(setting.name, finished.finished_seeds(setting.name)))
        for name, reference in analysis.pairs:
            seeds = finished.scored_seeds(name, reference)
            rows.append(mean(name, seeds) - mean(reference, seeds))
        return np.concatenate(rows)

    return statistic


def _summarize_settings(
    scores: Scores,
    settings: Sequence[Setting],
    latency: Mapping[str, Latency],
    bootstrap: BootstrapSummary,
) -> list[SettingSummary]:
    summaries = []
    for index, setting in enumerate(settings):
        errors = bootstrap.error[2 * index : 2 * index + 2]
        summaries.append(_summarize_setting(scores, setting, latency[setting.name], errors))
    return summaries


def _summarize_setting(
    scores: Scores, setting: Setting, latency: Latency, image_errors: np.ndarray
) -> SettingSummary:
    """Means over finished seeds; `image_errors` are those of AP and AP50."""
    seeds = scores.finished_seeds(setting.name)
    results = [scores.results[setting.name, seed] for seed in seeds]
    per_class = {}
    for label in results[0].per_class:
        ap = _spread([result.per_class[label][0] for result in results])
        ap50 = _spread([result.per_class[label][1] for result in results])
        per_class[label] = (ap, ap50)
    return SettingSummary(
        name=setting.name,
        control_of=setting.control_of,
        failed=sum(name == setting.name for name, _ in scores.failed),
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
