"""Search: which block, where? Halving over many settings, then a comparison of the best few.

The search sees training images only: it holds out a part of them, on which candidates are scored.
Its best candidates, the finalists, are then compared like any settings, on seeds that the search
did not use and on the untouched test images, so that nothing they were chosen by counts for them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from nets import attention
from nets.yolo.yolov4_tiny import SITES_BY_HEADS
from utils.compare.planning.controls import make_control, match_parameters
from utils.compare.planning.plan import Plan, Setting, Trial
from utils.compare.planning.request import make_plan
from utils.compare.reporting.report import format_csv
from utils.compare.statistics.halving import (
    Gains,
    Rung,
    SearchResult,
    halve,
    main_effects,
    make_rungs,
    mean_gain,
)
from utils.compare.trials.failures import read_failure
from utils.compare.trials.results import read_result
from utils.compare.trials.running import SharedData, read_state
from utils.compare.workflow import make_folder, prepare, run_missing
from utils.core.config import find_config, load_config
from utils.core.errors import UserError, counted, nearest
from utils.core.folder_lock import locked
from utils.core.outputs import write_file
from utils.core.overrides import parse_overrides
from utils.core.schema import Config
from utils.core.validation import SavedSection, read_json
from utils.data.layout import resolve
from utils.engine.report import write_json

FOLDER = "search"  # below the comparison's folder
PLAN_FILE = "search.json"
RANKING = "ranking.csv"
BASELINE = "none"
DEFAULT_SITES = "default"  # all sites of `attention.at` together
HELD_OUT = 0.2  # of the training images
FIRST_SEED = 1000  # of the search, far from the seeds that people give to comparisons


class SavedSearch(SavedSection):
    """What is written before the first trial.

    Attributes:
        candidates: name and digest of each candidate.
        rungs: number of candidates and seeds of each rung.
        finalists: how many candidates are compared afterwards.
        seeds: the seeds of that comparison.
        margin: its margin, in points.
        looks: its looks.
    """

    candidates: list[str]
    rungs: list[tuple[int, list[int]]]
    finalists: int
    seeds: list[int]
    margin: float | None
    looks: list[int]


@dataclass(frozen=True)
class Search:
    """A search, and the comparison that follows it, before any training.

    Attributes:
        plan: the candidates and the baseline, on training images only.
        rungs: the rungs of the halving.
        finalists: number of finalists.
        phi: candidate -> `phi` as text.
        parts: candidate -> block and site.
        compare: makes the plan of the comparison from the `phi` of its settings.
    """

    plan: Plan
    rungs: tuple[Rung, ...]
    finalists: int
    phi: dict[str, str]
    parts: dict[str, tuple[str, str]]
    compare: Callable[[Sequence[str]], Plan]

    @property
    def settings(self) -> dict[str, Setting]:
        """Name -> candidate or baseline."""
        return {setting.name: setting for setting in self.plan.settings}

    def at(self, names: Sequence[str], seeds: Sequence[int]) -> Plan:
        """The trials of some candidates and the baseline."""
        settings = tuple(self.settings[name] for name in (BASELINE, *names))
        return replace(self.plan, settings=settings, seeds=tuple(seeds))


def make_search(
    config: str,
    seeds: Sequence[str | int] | None = None,
    out: str | None = None,
    overrides: Sequence[str] = (),
    margin: float | None = None,
    blocks: Sequence[str] = ("all",),
    sites: Sequence[str] = (DEFAULT_SITES,),
    budget: int | None = None,
    finalists: int = 3,
    search_with: Sequence[str] = (),
    looks: Sequence[str | int] = (),
) -> Search:
    """Read and check all parts of a search before any training.

    Args:
        config: the base experiment.
        seeds: seeds of the comparison of the finalists; None: as for any comparison.
        out: folder; None: `runs/search-<config>`.
        overrides: `KEY=VALUE` words for the search and the comparison.
        margin: margin of the comparison, in points; None: not declared.
        blocks: names of attention blocks; `all`: every one.
        sites: sites that a candidate has its block at, one each; `all`: every one; `default`: all
            sites of `attention.at` together.
        budget: number of trials of the search, those of the baseline not included; None: twice
            the number of candidates.
        finalists: number of candidates that are compared.
        search_with: `KEY=VALUE` words for the search alone, such as fewer epochs.
        looks: looks of the comparison.

    Raises:
        UserError: something cannot be trained; the budget does not try every candidate; the data
            has no test images that the search cannot see.
    """
    base = load_config(config, parse_overrides(overrides))
    parts = _candidates(blocks, sites, list(SITES_BY_HEADS[base.model.heads]))
    folder = Path(out or f"runs/search-{find_config(config).stem}")
    rungs = make_rungs(len(parts), 2 * len(parts) if budget is None else budget, finalists)
    rungs = [replace(rung, seeds=tuple(FIRST_SEED + seed for seed in rung.seeds)) for rung in rungs]
    phi = [_phi_text(block, site) for block, site in parts]

    def compare(settings: Sequence[str]) -> Plan:
        return make_plan(
            config=config,
            phi=[BASELINE, *settings],
            seeds=seeds,
            out=str(folder),
            baseline=BASELINE,
            overrides=overrides,
            margin=margin,
            looks=looks,
        )

    reserved = [seed for rung in rungs for seed in rung.seeds]
    both = set(compare(phi[:1]).seeds) & set(reserved)
    if both:
        raise UserError(f"--seeds {min(both)}: the search uses seeds from {FIRST_SEED} on")
    plan = make_plan(
        config,
        [BASELINE, *phi],
        seeds=reserved,
        out=str(folder / FOLDER),
        overrides=[*overrides, *search_with, *_held_out(base)],
    )
    names = [setting.name for setting in plan.settings[1:]]
    return Search(
        plan=plan,
        rungs=tuple(rungs),
        finalists=min(finalists, len(parts)),
        phi=dict(zip(names, phi, strict=True)),
        parts=dict(zip(names, parts, strict=True)),
        compare=compare,
    )


def _candidates(
    blocks: Sequence[str], sites: Sequence[str], all_sites: Sequence[str]
) -> list[tuple[str, str]]:
    """Pairs of a block and a site."""
    own_sites = _expand(sites, all_sites, (DEFAULT_SITES, *all_sites), "--sites")
    own_blocks = _expand(blocks, attention.names(), attention.names(), "--blocks")
    return [(block, site) for block in own_blocks for site in own_sites]


def _expand(
    given: Sequence[str], every: Sequence[str], valid: Sequence[str], what: str
) -> list[str]:
    """The names given, each once; `all` stands for every one."""
    names: list[str] = []
    for name in given:
        if name != "all" and name not in valid:
            raise UserError(f"{what} {name}: no such name{nearest(name, ['all', *valid])}")
        names += every if name == "all" else [name]
    return list(dict.fromkeys(names))


def _phi_text(block: str, site: str) -> str:
    return block if site == DEFAULT_SITES else f"{{{site}: {block}}}"


def _held_out(base: Config) -> list[str]:
    """Overrides by which a part of the training images takes the place of all others.

    Raises:
        UserError: the validation images are a part of the training images already.
    """
    data, _ = resolve(base.data)
    if data.train == data.val and data.test is None:
        raise UserError(
            f"data.val: the finalists are compared on images that the search must not see, but "
            f"{data.root or 'the data'} has one split; name another one as data.val, or divide "
            "it: python -m utils.data split --help"
        )
    return [f"data.val={data.train}", f"data.val_share={HELD_OUT}", "data.test=null"]


def search(plan: Search, ray: str | None = None) -> Plan:
    """Run the missing trials of a search; return the plan of the finalists' comparison.

    Args:
        plan: the search.
        ray: as for `workflow.compare`.

    Raises:
        UserError: the folder holds another search or is in use; no candidate could be trained.
    """
    make_folder(plan.plan.out)
    with locked(plan.plan.out, "compare.py is searching", "wait, or give another --out"):
        declare(plan)
        data = SharedData()
        prepare(plan.plan, data)
        _print_rungs(plan)
        gains = halve(list(plan.phi), plan.rungs, partial(_run, plan, data, ray))
    if not gains:
        raise UserError(f"{plan.plan.out}: no candidate has a score: every training failed")
    _write_ranking(plan, gains)
    finalists = list(gains)[: plan.finalists]
    comparison = plan.compare([plan.phi[name] for name in finalists])
    control = make_control(comparison.settings[1], match_parameters)
    blocks, sites = main_effects(gains, plan.parts)
    return replace(
        comparison,
        settings=(*comparison.settings, control),
        search=SearchResult(gains=gains, blocks=blocks, sites=sites),
    )


def declare(plan: Search) -> None:
    """Write the plan before the first trial, or see that it is still the same.

    Raises:
        UserError: the folder's search began with another plan.
    """
    comparison = plan.compare(list(plan.phi.values())[:1])
    new = SavedSearch(
        candidates=[f"{setting.name} {setting.digest}" for setting in plan.plan.settings],
        rungs=[(rung.candidates, list(rung.seeds)) for rung in plan.rungs],
        finalists=plan.finalists,
        seeds=list(comparison.seeds),
        margin=comparison.margin,
        looks=list(comparison.looks),
    )
    path = plan.plan.out / PLAN_FILE
    if not path.is_file():
        write_json(path, new.model_dump())
        return
    old = read_json(SavedSearch, path, "; give another --out")
    for key, value in new:
        if getattr(old, key) != value:
            raise UserError(f"{path}: began with other {key}; give another --out")


def _print_rungs(plan: Search) -> None:
    stages = [
        f"{rung.candidates} with {counted(len(rung.seeds), 'more seeds')}"
        for rung in plan.rungs[1:]
    ]
    trials = sum((rung.candidates + 1) * len(rung.seeds) for rung in plan.rungs)
    print(f"search: {', then '.join([f'{len(plan.phi)} candidates with a seed', *stages])}")
    print(f"{trials} trainings in all, then {plan.finalists} finalists are compared")


def _write_ranking(plan: Search, gains: Gains) -> None:
    """All candidates with a score, best first."""
    rows = []
    for name, by_seed in gains.items():
        rows.append([name, *plan.parts[name], len(by_seed), mean_gain(by_seed)])
    text = format_csv(["setting", "block", "site", "seeds", "ap_ahead"], rows)
    write_file(plan.plan.out / RANKING, text)


def _run(
    plan: Search, data: SharedData, ray: str | None, names: Sequence[str], seeds: Sequence[int]
) -> Gains:
    """Train candidates, and the baseline, and return what the candidates are ahead of it."""
    stage = plan.at(names, seeds)
    run_missing(stage, data, ray)
    scores: Gains = {}
    for trial in stage.trials:
        score = _score(trial)
        if score is not None:
            scores.setdefault(trial.setting, {})[trial.seed] = score
    baseline = scores.pop(BASELINE, {})
    gains: Gains = {}
    for name, by_seed in scores.items():
        own = {seed: score - baseline[seed] for seed, score in by_seed.items() if seed in baseline}
        if own:
            gains[name] = own
    return gains


def _score(trial: Trial) -> float | None:
    """AP; 0 if the training diverged, None if it failed otherwise."""
    if read_state(trial) == "finished":
        return read_result(trial).ap
    return 0.0 if read_failure(trial.folder).kind == "diverged" else None
