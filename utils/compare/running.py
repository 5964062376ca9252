"""The logic of `compare.py`: run all cells, measure, write the report."""

import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from utils.compare.analysis import Comparison, analyze
from utils.compare.cells import SharedData, failure, run_cell, state
from utils.compare.cluster import refuse_early
from utils.compare.crew import run_on_cluster
from utils.compare.latency import measure_latency
from utils.compare.lock import locked
from utils.compare.plan import Cell, Plan
from utils.compare.report import write_report
from utils.compare.results import read_outcome
from utils.compare.wording import duration
from utils.core.errors import UserError


def compare(plan: Plan, command: Sequence[str], ray: str | None = None) -> Comparison:
    """Train what is missing, compare, and write `report.html`, `report.md`, `results.csv` and `cells.csv`.

    Args:
        command: the command line's words, told in the report so that it can be repeated.
        ray: a Ray cluster's address, or `local`: the trainings run side by side. None: one after the other, here.

    Raises:
        UserError: the folder holds other trainings, or another command works there; the data is missing; the cluster
            cannot be joined; no training finished.
    """
    if ray is not None:
        refuse_early(ray, plan)
    _make_folder(plan.out)
    with locked(plan.out):
        data = SharedData()
        try:
            _run_all(plan, data, ray)
        except KeyboardInterrupt:
            print("the same command goes on with the comparison")
            raise
        return _report(plan, data, command)


def _run_all(plan: Plan, data: SharedData, ray: str | None) -> None:
    finished = [
        cell for cell in plan.cells if state(cell) == "finished"
    ]  # refuses a foreign folder before any work
    datasets = data(plan.variants[0].config)  # bad data fails here, once
    pictures = [len(datasets.train), len(datasets.val)]
    print(f"{len(plan.cells)} trainings, {len(finished)} of them finished already")
    if ray is None:
        run_cells(plan.cells, finished, data)
    else:
        run_on_cluster(ray, plan, finished, pictures)


def _report(plan: Plan, data: SharedData, command: Sequence[str]) -> Comparison:
    outcomes = [read_outcome(cell) for cell in plan.cells if state(cell) == "finished"]
    failed = {
        (cell.variant, cell.seed): failure(cell) or ""
        for cell in plan.cells
        if state(cell) == "failed"
    }
    if not outcomes:
        raise UserError(f"no training finished; the first one says: {next(iter(failed.values()))}")
    firsts = {outcome.cell.variant: outcome.cell for outcome in reversed(outcomes)}
    cells = [firsts[variant.name] for variant in plan.variants if variant.name in firsts]
    splits = {cell.variant: data(cell.config).val for cell in cells}
    sample = splits[cells[0].variant].samples[0]
    latency = measure_latency(plan.out, cells, sample.read_image())
    comparison = analyze(plan, outcomes, failed, latency, splits)
    write_report(plan.out, comparison, shlex.join(command))
    return comparison


def run_cells(cells: Sequence[Cell], finished: Sequence[Cell], data: SharedData) -> None:
    """Run every cell that is not finished, with a line on each and the time left, by the mean of those that are."""
    spent = [read_outcome(cell).train_seconds for cell in finished]
    todo = [cell for cell in cells if cell not in finished]
    for number, cell in enumerate(todo):
        left = (
            f", about {duration(sum(spent) / len(spent) * (len(todo) - number))} left"
            if spent
            else ""
        )
        print(
            f"\n[{len(finished) + number + 1}/{len(cells)}] {cell.variant}, seed {cell.seed}{left}"
        )
        start = time.monotonic()
        whole = state(cell) == "new"
        if not run_cell(cell, data):
            print(f"failed: {failure(cell)}; going on with the others")
        else:
            spent.append(time.monotonic() - start if whole else read_outcome(cell).train_seconds)


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: cannot make this folder: {error.strerror}") from None


def summary(comparison: Comparison, out: Path) -> str:
    """What the command line prints at the end."""
    lines = [
        f"{row.name:24} AP {row.ap.text()}  AP50 {row.ap50.text()}" for row in comparison.settings
    ]
    lines += ["", *(pair.sentence for pair in comparison.pairs)]
    lines += [
        f"failed: {name}, seed {seed}: {reason}"
        for (name, seed), reason in comparison.failed.items()
    ]
    return "\n".join(
        [
            *lines,
            "",
            f"report: {out / 'report.html'} (report.md, results.csv and cells.csv beside it)",
        ]
    )
