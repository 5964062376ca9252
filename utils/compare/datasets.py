"""The same comparison on several datasets: each by itself, and what holds on average over them.

Every dataset has its own folder and report. The report over them, one level up, tests the mean over
datasets of a seed's differences: is a setting better on average over these datasets, each counting
the same? What it would be on others, only the spread between the datasets can tell.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.compare.analysis.comparison import Comparison, PairSummary
from utils.compare.planning.plan import Plan
from utils.compare.reporting.difference_tables import short_verdict
from utils.compare.reporting.phrases import interval, probability, signed
from utils.compare.reporting.report import render
from utils.compare.reporting.table import ReportTable, make_table
from utils.compare.reporting.translation import Language
from utils.compare.statistics.paired import (
    EQUAL,
    Interval,
    Judgement,
    PairedDifference,
    judge,
    paired_difference,
)
from utils.compare.workflow import compare
from utils.core.config import find_config
from utils.core.errors import UserError
from utils.core.outputs import write_file


@dataclass(frozen=True)
class OverDatasets:
    """A setting and its reference on several datasets. Differences are in AP points.

    Attributes:
        name: name of the setting.
        reference: name of the setting that it is compared with.
        pairs: dataset -> the pair on it.
        ap: over the seeds that all datasets have, differences averaged over datasets.
        other_datasets: 95% t interval of the mean over datasets, each one observation.
        judgement: verdict on `ap`.
    """

    name: str
    reference: str
    pairs: dict[str, PairSummary]
    ap: PairedDifference
    other_datasets: Interval
    judgement: Judgement


def folders(configs: Sequence[str], out: str | None) -> list[str]:
    """A folder for each dataset, below that of the comparison.

    Args:
        configs: names or paths of the configurations.
        out: folder of the comparison; None: `runs/compare-` with the names of all.

    Raises:
        UserError: two have the same name.
    """
    names = [find_config(config).stem for config in configs]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--config: two configurations are named {name}; rename one of them")
    folder = Path(out or f"runs/compare-{'-'.join(names)}")
    return [str(folder / name) for name in names]


def compare_datasets(
    plans: Sequence[Plan],
    command: Sequence[str],
    ray: str | None = None,
    language: Language = "en",
) -> list[OverDatasets]:
    """Run the comparison on every dataset, and write the report over them.

    Args:
        plans: one for each dataset, with the same settings, in the folders of `folders`. The
            report is written one level up.
        command: as for `workflow.compare`, like the others.
        ray: likewise.
        language: likewise.

    Raises:
        UserError: as `workflow.compare`.
    """
    comparisons = {}
    for plan in plans:
        print(f"\n=== {plan.config_name} ===")
        comparisons[plan.config_name] = compare(plan, command, ray, language)
    found = summarize_datasets(comparisons)
    context = {
        "title": f"Comparison on {len(plans)} datasets",
        "datasets": {name: f"{name}/report" for name in comparisons},
        "sentences": [(pair.judgement.verdict.split()[0], sentence(pair)) for pair in found],
        "tables": _tables(found),
        "links": {},
        "figures": {},
        "command": shlex.join(command),
    }
    for name in ("datasets.html", "datasets.md"):
        path = plans[0].out.parent / name.replace("datasets", "report")
        write_file(path, render(name, context, language))
    return found


def summarize_datasets(comparisons: Mapping[str, Comparison]) -> list[OverDatasets]:
    """Judge every pair that all datasets have.

    Args:
        comparisons: dataset -> its comparison.
    """
    first = next(iter(comparisons.values()))
    by_dataset: list[dict[str, PairSummary]] = []
    for pair in first.pairs:
        own = {}
        for dataset, comparison in comparisons.items():
            for other in comparison.pairs:
                if (other.name, other.reference) == (pair.name, pair.reference):
                    own[dataset] = other
        if len(own) == len(comparisons):
            by_dataset.append(own)
    means = [paired_difference(_mean_by_seed(own)) for own in by_dataset]
    complete = [not any(pair.errors for pair in own.values()) for own in by_dataset]
    # a look at a dataset is a look at the mean, too
    family = max(comparison.family for comparison in comparisons.values())
    judged = judge(means, family, complete, first.plan.margin)
    found = []
    for own, mean, judgement in zip(by_dataset, means, judged, strict=True):
        pair = own[next(iter(own))]
        datasets = paired_difference([each.ap.mean for each in own.values()])
        found.append(
            OverDatasets(pair.name, pair.reference, own, mean, datasets.interval, judgement)
        )
    return found


def _mean_by_seed(pairs: Mapping[str, PairSummary]) -> list[float]:
    """Mean over datasets of the differences, for every seed that all datasets have."""
    by_seed = [pair.differences for pair in pairs.values()]
    seeds = set.intersection(*(set(each) for each in by_seed))
    return [float(np.mean([each[seed] for each in by_seed])) for seed in sorted(seeds)]


def summarize(found: Sequence[OverDatasets], plans: Sequence[Plan]) -> str:
    """What the command line prints at the end."""
    lines = [sentence(pair) for pair in found]
    return "\n".join([*lines, "", f"report: {plans[0].out.parent / 'report.html'}"])


def sentence(pair: OverDatasets) -> str:
    """What can be said of a pair over all datasets."""
    verdict, margin = pair.judgement.verdict, next(iter(pair.pairs.values())).margin
    where = f"on average over these {len(pair.pairs)} datasets, {pair.ap.seeds} seeds each"
    if verdict in ("better", "worse"):
        begin = f"{pair.name} is {verdict} than {pair.reference} by {abs(pair.ap.mean):.2f} AP"
        return f"{begin} {where}."
    if verdict == EQUAL:
        return (
            f"{pair.name} and {pair.reference} are practically equal {where}: they differ by less"
            f" than {margin:g} AP."
        )
    return f"{pair.name} against {pair.reference}: {verdict}, {where}."


def _tables(found: Sequence[OverDatasets]) -> list[ReportTable]:
    over = make_table(
        "Over all datasets",
        "AP differences in points, for each seed the mean over the datasets, each counting the"
        " same. For other datasets, each of these is one observation, as if drawn at random from"
        " those you mean: with fewer than five the interval says little.",
        found,
        {
            "setting – reference": _name,
            "verdict": lambda pair: short_verdict(pair.judgement.verdict),
            "seeds": lambda pair: str(pair.ap.seeds),
            "AP difference": lambda pair: signed(pair.ap.mean),
            "95% over seeds": lambda pair: interval(pair.ap.interval),
            "95% for other datasets": lambda pair: interval(pair.other_datasets),
            "corrected p": lambda pair: probability(pair.judgement.p),
        },
        mark=lambda pair: pair.judgement.verdict.split()[0],
    )
    rows = []
    for pair in found:
        own = pair.pairs.values()
        cells = [f"{signed(each.ap.mean)} ({short_verdict(each.verdict)})" for each in own]
        rows.append([_name(pair), *cells])
    head = ["setting – reference", *(found[0].pairs if found else ())]
    remark = "AP difference in points, and the verdict there."
    return [over, ReportTable("Each dataset", remark, head, rows, [""] * len(rows))]


def _name(pair: OverDatasets) -> str:
    return f"{pair.name} – {pair.reference}"
