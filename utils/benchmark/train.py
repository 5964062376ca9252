"""Training: a step on a ready batch and whole epochs, beside the naive step; and what a step spends its time on."""

from functools import partial

import numpy as np

from utils.benchmark.bench import Bench
from utils.benchmark.data import endless, rewind, step_clock
from utils.benchmark.parts import PARTS, shares, watched_step
from utils.benchmark.rows import Row, Section, Target, per_second, ratio_of
from utils.core.timing import Clock, Stat, interleave, milliseconds, timed
from utils.engine.trainer import Trainer

PASSES = 3  # a training step computes about thrice what a forward pass does
TARGETS = {"bf16": 3.5, "fp16": 3.5, "fp32": 1.5}  # times the naive step
LOSS_TARGET = 3.0  # percent of the step

Times = dict[str, np.ndarray]


def section(bench: Bench) -> Section:
    """Measure."""
    trainers = {
        precision: bench.trainer(precision)
        for precision in dict.fromkeys([bench.precision, "fp32"])
    }
    steps: list[dict[str, float]] = []
    cold = milliseconds(lambda: bench.pictures(bench.train_split.samples).prepare(progress=False))
    times = interleave(_clocks(bench, trainers, steps), bench.settings.effort, "train")
    rounds = len(times["naive"])
    size = len(bench.batch.labels)
    rows = [Row("train.naive", "naive step, fp32", per_second(times["naive"], size), "pictures/s")]
    for precision, trainer in trainers.items():
        rows += _rows(bench, precision, trainer, times)
    rows.append(_decoding(bench, cold))
    notes = [
        f"batches of {size} at {bench.config.input_size[1]}x{bench.config.input_size[0]}; epoch: {_epoch(bench)}",
        "GFLOP/s: three forward passes' operations a step; of peak: of the matrix product in the same rounds",
        f"shares: of {rounds} {bench.precision} steps with the making of their batches, each seam timed",
    ]
    return Section(
        "train", "images a second, beside a naive step", [*rows, *_shares(steps[-rounds:])], notes
    )


def _epoch(bench: Bench) -> str:
    return f"{len(bench.train_set)} images, with augmentation, loss, optimizer and moving average"


def _clocks(
    bench: Bench, trainers: dict[str, Trainer], steps: list[dict[str, float]]
) -> dict[str, Clock]:
    clocks = {"naive": bench.naive(training=True).clock("step")}
    for precision, trainer in trainers.items():
        clocks[f"step {precision}"] = step_clock(trainer, bench.batch)
        product = bench.peak(precision)
        if product is not None:
            clocks[f"peak {precision}"] = product.clock
        clocks[f"epoch {precision}"] = timed(partial(run_epoch, trainer), device=bench.device)
    watched, batches = trainers[bench.precision], endless(trainers[bench.precision].batches)
    clocks["parts"] = timed(lambda: steps.append(watched_step(watched, batches)))
    return clocks


def run_epoch(trainer: Trainer) -> None:
    """The first epoch, once more."""
    rewind(trainer)
    trainer.run_epoch()


def _rows(bench: Bench, precision: str, trainer: Trainer, times: Times) -> list[Row]:
    size, steps = len(bench.batch.labels), trainer.batches.steps
    naive = times["naive"]
    step, epoch = times[f"step {precision}"], times[f"epoch {precision}"] / steps
    titles = {
        "step": (f"step on a ready batch, {precision}", step),
        "epoch": (f"whole epoch, {precision}", epoch),
    }
    rows = []
    for kind, (title, taken) in titles.items():
        target = Target(TARGETS[precision], of="ratio") if kind == "epoch" else None
        rate, ratio = per_second(taken, size), ratio_of(naive, taken)
        reached = bench.reached(
            precision, PASSES * bench.gflops * size, taken, times.get(f"peak {precision}")
        )
        rows.append(
            Row(
                f"train.{kind}.{precision}",
                title,
                rate,
                "pictures/s",
                ratio,
                "naive",
                *reached,
                target,
            )
        )
    return rows


def _decoding(bench: Bench, cold: float) -> Row:
    rate = per_second([cold], len(bench.train_set))
    return Row("train.decode_once", "decoding into the cache, once a run", rate, "pictures/s")


def _shares(steps: list[dict[str, float]]) -> list[Row]:
    found = shares(steps)
    rows = [
        Row(f"train.share.{part}", f"share of step: {title}", Stat.of(found[part]), "%")
        for part, title in PARTS.items()
    ]
    whole = Stat.of(found["loss_whole"])
    title = "share of step: loss and assignment, both ways"
    return [
        *rows,
        Row(
            "train.share.loss_whole", title, whole, "%", target=Target(LOSS_TARGET, at_least=False)
        ),
    ]
