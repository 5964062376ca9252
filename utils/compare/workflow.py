"""A comparison from its plan to its report."""

import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from utils.compare.analysis import Comparison, analyze
from utils.compare.failures import read_failure
from utils.compare.latency import measure_latency
from utils.compare.phrases import sentence, spread
from utils.compare.plan import Plan, Trial
from utils.compare.ray_cluster import check_ray
from utils.compare.record import append_look, append_plan, read_record, with_declared_margin
from utils.compare.report import write_report
from utils.compare.results import read_result
from utils.compare.translation import Language
from utils.compare.trials import SharedData, read_state, run_trial
from utils.compare.worker_pool import run_on_cluster
from utils.core.errors import UserError
from utils.core.folder_lock import locked
from utils.core.progress import duration

OLD_TRIALS = "cells"  # the folder of the trials in earlier versions


def compare(
    plan: Plan, command: Sequence[str], ray: str | None = None, language: Language = "en"
) -> Comparison:
    """Run the missing trials, analyze all of them, and write the report.

    Args:
        plan: what to compare.
        command: words of the command line, which the report shows.
        ray: address of a Ray cluster, or `local`, to run the trials in parallel;
            None: one after the other in this process.
        language: language of the report's words.

    Raises:
        UserError: the folder holds other trainings or is in use; the data is missing; the cluster
            cannot be joined; no trial finished.
    """
    if ray is not None:
        check_ray(ray, plan)
    make_folder(plan.out)
    with locked(plan.out, "compare.py is working", "wait, or give another --out"):
        plan = with_declared_margin(plan)
        data = SharedData()
        try:
            run_missing(plan, data, ray)
        except KeyboardInterrupt:
            print("the same command resumes the comparison")
            raise
        return _report(plan, data, command, language)


def make_folder(out: Path) -> None:
    """Make the folder of a comparison.

    Raises:
        UserError: it cannot be made, or an earlier version made it.
    """
    if (out / OLD_TRIALS).is_dir():
        raise UserError(f"{out} was made by an earlier version of compare.py: give another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: cannot make this folder: {error.strerror}") from None


def run_missing(plan: Plan, data: SharedData, ray: str | None) -> None:
    """Record the plan, and run its trials that are not finished.

    Raises:
        UserError: the folder holds other trainings; the data is missing; the cluster cannot be
            joined.
    """
    # fails on a folder of other trainings before any work
    finished = [trial for trial in plan.trials if read_state(trial) == "finished"]
    datasets = data.load(plan.settings[0].config)  # bad data fails here, once
    append_plan(plan.out, plan)
    print(f"{len(plan.trials)} trials, {len(finished)} of them already finished")
    if ray is None:
        run_trials(plan.trials, finished, data)
    else:
        run_on_cluster(ray, plan, finished, (len(datasets.train), len(datasets.val)))


def run_trials(trials: Sequence[Trial], finished: Sequence[Trial], data: SharedData) -> None:
    """Run every trial that is not finished, one after the other, and print the time left."""
    durations = [read_result(trial).train_seconds for trial in finished]
    missing = [trial for trial in trials if trial not in finished]
    for index, trial in enumerate(missing):
        left = ""
        if durations:
            mean = sum(durations) / len(durations)
            left = f", about {duration(mean * (len(missing) - index))} left"
        print(f"\n[{len(finished) + index + 1}/{len(trials)}] {trial}{left}")
        start = time.monotonic()
        new = read_state(trial) == "new"
        if not run_trial(trial, data):
            print(f"failed: {read_failure(trial.folder).reason}; continuing with the others")
        elif new:
            durations.append(time.monotonic() - start)
        else:
            durations.append(read_result(trial).train_seconds)


def _report(plan: Plan, data: SharedData, command: Sequence[str], language: Language) -> Comparison:
    results = []
    failed = {}
    for trial in plan.trials:
        state = read_state(trial)
        if state == "finished":
            results.append(read_result(trial))
        elif state == "failed":
            failed[trial.setting, trial.seed] = read_failure(trial.folder)
    if not results:
        first = next(iter(failed.values()))
        raise UserError(f"no trial finished; the first error: {first.reason}")
    first_trials: dict[str, Trial] = {}  # a finished one of each setting
    for result in results:
        first_trials.setdefault(result.trial.setting, result.trial)
    splits = {name: data.load(trial.config).final for name, trial in first_trials.items()}
    sample = next(iter(splits.values())).samples[0]
    latency = measure_latency(plan.out, list(first_trials.values()), sample.read_image())
    comparison = analyze(plan, results, failed, latency, splits, read_record(plan.out))
    append_look(plan.out, plan, comparison.tests)
    write_report(plan.out, comparison, shlex.join(command), language)
    return comparison


def summarize(comparison: Comparison) -> str:
    """What the command line prints at the end."""
    lines = [
        f"{setting.name:24} AP {spread(setting.ap)}  AP50 {spread(setting.ap50)}"
        for setting in comparison.settings
    ]
    lines.append("")
    lines += [sentence(pair) for pair in comparison.pairs]
    for (name, seed), failure in comparison.failed.items():
        lines.append(f"failed: {name}, seed {seed}: {failure.reason}")
    lines.append("")
    report = comparison.plan.out / "report.html"
    lines.append(f"report: {report} (report.md, results.csv and trials.csv beside it)")
    return "\n".join(lines)
