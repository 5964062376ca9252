"""Training: a step on a ready batch and whole epochs against the baseline's step, and phases."""

from utils.benchmark.data import endless_batches, rewind, step_clock
from utils.benchmark.results import Case, Measurement, ResultTable, Target
from utils.benchmark.session import BenchmarkSession
from utils.benchmark.step_profile import SHARES, profile_step
from utils.core.timing import Stat, milliseconds, timed
from utils.engine.trainer import Trainer

PASSES = 3  # a training step computes about as much as three forward passes
EPOCH_TARGETS = {"bf16": 3.5, "fp16": 3.5, "fp32": 1.5}  # relative to the baseline
LOSS_TARGET = 3.0  # percent of the step


def train_table(session: BenchmarkSession) -> ResultTable:
    """Measure."""
    size = len(session.batch.labels)
    clock = session.baseline(training=True).clock("step")
    cases = [Case("baseline", "baseline step, fp32", clock, size)]
    for precision in dict.fromkeys([session.precision, "fp32"]):
        cases += _cases(session, precision)
    cases.append(_muon_case(session))
    shares: list[dict[str, float]] = []
    if session.device.type != "mps":  # the profiler does not record its kernels
        cases.append(_profile_case(session, shares))
    decoding = _decoding(session)
    rows, times = session.measure("train", cases)
    rounds = len(times["baseline"])
    height, width = session.config.input_size
    notes = [
        f"batches of {size} at {width}x{height}; epoch: {len(session.train_set)} images, with "
        "augmentation, loss, optimizer and EMA",
        "GFLOP/s: a step counts as three forward passes",
        f"shares: of {rounds} profiled {session.precision} steps, with making their batches",
    ]
    rows = [*rows, decoding, *_share_rows(shares[-rounds:])]
    return ResultTable("train", "images per second, against a baseline step", rows, notes)


def run_epoch(trainer: Trainer) -> None:
    """Train the first epoch once more."""
    rewind(trainer)
    trainer.run_epoch(show=False)


def _cases(session: BenchmarkSession, precision: str) -> list[Case]:
    """A step on a ready batch, and an epoch."""
    trainer = session.trainer(precision)
    size = len(session.batch.labels)
    clocks = {
        "step": step_clock(trainer, session.batch),
        "epoch": timed(lambda: run_epoch(trainer), device=session.device),
    }
    labels = {"step": "step on a ready batch", "epoch": "whole epoch"}
    images = {"step": size, "epoch": trainer.batches.steps * size}
    targets = {"epoch": Target(EPOCH_TARGETS[precision], of="ratio")}
    cases = []
    for kind, clock in clocks.items():
        key, what = f"{kind}.{precision}", f"{labels[kind]}, {precision}"
        count, target = images[kind], targets.get(kind)
        gflop = count * PASSES * session.gflops
        case = Case(key, what, clock, count, "images/s", "baseline", target, gflop, precision)
        cases.append(case)
    return cases


def _muon_case(session: BenchmarkSession) -> Case:
    """An epoch with the default optimizer, which does more than the baseline's."""
    precision = session.precision
    trainer = session.trainer(precision, "muon")
    clock = timed(lambda: run_epoch(trainer), device=session.device)
    count = trainer.batches.steps * len(session.batch.labels)
    what = f"whole epoch, {precision}, muon"
    return Case(f"epoch_muon.{precision}", what, clock, count, "images/s", "baseline")


def _profile_case(session: BenchmarkSession, shares: list[dict[str, float]]) -> Case:
    """Profile a step and append its shares to `shares`."""
    trainer = session.trainer(session.precision)
    trainer.start_epoch()
    batches = endless_batches(trainer.batches)

    def run() -> None:
        rewind(trainer)
        shares.append(profile_step(trainer, batches))

    return Case("profile", "", timed(run))


def _decoding(session: BenchmarkSession) -> Measurement:
    workers = session.config.train.workers
    dataset = session.dataset(session.train_set.samples, "ram", workers)
    seconds = milliseconds(lambda: dataset.prepare(progress=False)) / 1000
    rate = Stat.of([len(dataset) / seconds])
    return Measurement("decode_once", "decoding into the cache, once per run", "images/s", rate)


def _share_rows(shares: list[dict[str, float]]) -> list[Measurement]:
    rows = []
    for phase, label in SHARES.items() if shares else ():
        key, what = f"share.{phase}", f"share of step: {label}"
        target = Target(LOSS_TARGET, at_least=False) if phase == "loss_whole" else None
        share = Stat.of([step[phase] for step in shares])
        rows.append(Measurement(key, what, "%", share, target=target))
    return rows
