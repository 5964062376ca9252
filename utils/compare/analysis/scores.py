"""Which trials of settings count, and their scores."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from utils.compare.planning.plan import Plan
from utils.compare.trials.failures import Failure, FailureKind
from utils.compare.trials.results import TrialResult

Results = Mapping[tuple[str, int], TrialResult]  # by setting and seed
Score = Callable[[TrialResult], float]


class Scores:
    """The scores of a plan's trials. One that diverged counts as 0; one lost to the machine, not.

    Args:
        plan: the plan of the comparison.
        results: results of the finished trials.
        failed: (setting, seed) -> why it failed.
    """

    def __init__(
        self, plan: Plan, results: Results, failed: Mapping[tuple[str, int], Failure]
    ) -> None:
        self.plan = plan
        self.results = results
        self.failed = failed

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

    def score(self, name: str, seed: int, score: Score) -> float:
        """A trial's score; 0 if it diverged."""
        result = self.results.get((name, seed))
        return 0.0 if result is None else score(result)

    def mean(self, name: str, seeds: Iterable[int], score: Score) -> float:
        """Mean score over seeds that are scored."""
        return float(np.mean([self.score(name, seed, score) for seed in seeds]))

    def differences(self, name: str, reference: str, score: Score) -> dict[int, float]:
        """Seed -> difference of a score, setting minus reference."""
        differences = {}
        for seed in self.scored_seeds(name, reference):
            difference = self.score(name, seed, score) - self.score(reference, seed, score)
            differences[seed] = difference
        return differences

    def class_differences(self, name: str, reference: str) -> dict[str, list[float]]:
        """Class -> AP differences over the seeds that both finished."""
        labels = next(iter(self.results.values())).per_class
        by_class: dict[str, list[float]] = {label: [] for label in labels}
        for seed in self.finished_seeds(name, reference):
            result, other = self.results[name, seed], self.results[reference, seed]
            for label, differences in by_class.items():
                differences.append(result.per_class[label][0] - other.per_class[label][0])
        return by_class
