"""The data pipeline: files to canvases, the caches, and the making of training batches, beside what a step needs."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from utils.benchmark.bench import Bench
from utils.benchmark.rows import Row, Section, per_second, ratio_of
from utils.core.schema import AugmentConfig
from utils.core.timing import Clock, interleave, timed
from utils.data.augmentation import Batch
from utils.engine.batches import BatchMaker
from utils.engine.trainer import Trainer


def section(bench: Bench) -> Section:
    """Measure."""
    size = len(bench.batch.labels)
    clocks, titles = _clocks(bench, size)
    times = interleave(clocks, bench.settings.effort, "data")
    height, width = bench.photo.shape[:2]
    rows = [
        Row(
            f"data.{key}",
            title,
            per_second(times[key], size),
            "pictures/s",
            ratio_of(times["step"], times[key]),
            "step",
        )
        for key, title in titles.items()
        if key != "step"
    ]
    step = Row("data.step", titles["step"], per_second(times["step"], size), "pictures/s")
    notes = [
        f"files: like {width}x{height} {bench.train_split.samples[0].path.suffix[1:]}; blocks of {size} images"
    ]
    return Section(
        "data", "images a second, beside those that a training step takes", [step, *rows], notes
    )


def _clocks(bench: Bench, size: int) -> tuple[dict[str, Clock], dict[str, str]]:
    samples = bench.train_split.samples[:size]
    trainer = bench.trainer(bench.precision)
    cold = bench.pictures(samples, "none", workers=0)
    disk = bench.pictures(samples, "disk")
    disk.prepare(progress=False)
    ram = bench.pictures(samples, "ram")
    ram.prepare(progress=False)
    order = list(np.random.default_rng(0).permutation(size))
    whole = partial(bench.pictures, samples, "ram")
    plain = bench.config.augment.model_copy(update={"mosaic": 0.0, "mixup": 0.0})
    mosaic = bench.config.augment.model_copy(update={"mosaic": 1.0})
    made = {
        "step": (f"training step, {bench.precision}", step_clock(trainer, bench.batch)),
        "decode": ("decode and letterbox, one thread", timed(partial(cold.canvases, order))),
        "fill": ("decode into the cache, threads", timed(lambda: whole().prepare(progress=False))),
        "ram": (
            "read from the memory cache",
            timed(partial(ram.canvases, order), before=partial(ram.canvases, order)),
        ),
        "disk": ("read from the disk cache", timed(partial(disk.canvases, order))),
        "batch": ("make a batch as configured", batch_clock(bench, trainer, bench.config.augment)),
        "batch_plain": ("make a batch, no mosaic", batch_clock(bench, trainer, plain)),
        "batch_mosaic": ("make a batch, mosaic only", batch_clock(bench, trainer, mosaic)),
    }
    return {key: clock for key, (_, clock) in made.items()}, {
        key: title for key, (title, _) in made.items()
    }


def batch_clock(bench: Bench, trainer: Trainer, augment: AugmentConfig) -> Clock:
    """Milliseconds a batch, from cached canvases to the device."""
    size, seed = bench.config.train.batch_size, bench.config.seed
    maker = BatchMaker(bench.train_set, augment, size, seed, bench.device, trainer.batches.pool)
    batches = endless(maker)
    return timed(lambda: next(batches), count=maker.steps, device=bench.device)


def step_clock(trainer: Trainer, batch: Batch) -> Clock:
    """Milliseconds of a training step on a ready batch, as the first of its epoch each time."""
    trainer.start_epoch()

    def step() -> None:
        rewind(trainer)
        trainer.step(batch)

    return timed(step, device=trainer.device)


def rewind(trainer: Trainer) -> None:
    """Back to the first step of the epoch, weights apart."""
    trainer.progress.step, trainer.progress.sums = 0, {}


def endless(maker: BatchMaker) -> Iterator[Batch]:
    """The first epoch's batches over and over."""
    while True:
        yield from maker.epoch(0, closing=False)
