"""AP that comparisons are made of, and comparisons of changed results."""

from collections.abc import Iterable

from utils.compare.analysis.analyze import analyze
from utils.compare.analysis.comparison import Comparison
from utils.compare.trials.latency import Latency
from utils.compare.trials.results import TrialResult

NONE = [30.0, 30.3, 29.8, 30.1, 29.9, 30.2]  # of six seeds


def analyze_again(comparison: Comparison, results: Iterable[TrialResult]) -> Comparison:
    """The comparison, as if its trials had these results."""
    latency = {
        each.name: Latency(each.latency, each.latency_interval) for each in comparison.settings
    }
    args = comparison.plan, list(results), {}, latency, comparison.splits
    return analyze(*args, resamples=10)
