"""The data pipeline: files to canvases, caches and batches, against what a training step needs."""

from collections.abc import Iterator
from functools import partial

from utils.benchmark.results import Case, ResultTable
from utils.benchmark.session import BenchmarkSession
from utils.core.timing import Clock, timed
from utils.data.augmentation import Batch
from utils.engine.batches import BatchMaker
from utils.engine.trainer import Trainer


def data_table(session: BenchmarkSession) -> ResultTable:
    """Measure."""
    size = len(session.batch.labels)
    trainer = session.trainer(session.precision)
    step = step_clock(trainer, session.batch)
    cases = [
        Case("step", f"training step, {session.precision}", step, size),
        *_image_cases(session, size),
        *_batch_cases(session, trainer.batches),
    ]
    rows, _ = session.measure("data", cases)
    height, width = session.image.shape[:2]
    suffix = session.train_set.samples[0].path.suffix[1:]
    notes = [f"files: like {width}x{height} {suffix}; blocks of {size} images"]
    title = "images per second, against those that a training step takes"
    return ResultTable("data", title, rows, notes)


def step_clock(trainer: Trainer, batch: Batch) -> Clock:
    """Milliseconds per training step on a ready batch, always the first step of an epoch."""
    trainer.start_epoch()

    def step() -> None:
        rewind(trainer)
        trainer.step(batch)

    return timed(step, device=trainer.device)


def rewind(trainer: Trainer) -> None:
    """Go back to the first step of the epoch; the weights are kept."""
    trainer.progress.step = 0
    trainer.progress.sums = {}


def endless_batches(maker: BatchMaker) -> Iterator[Batch]:
    """Yield the batches of the first epoch repeatedly."""
    while True:
        yield from maker.epoch(0, closing=False)


def _case(key: str, what: str, clock: Clock, size: int) -> Case:
    return Case(key, what, clock, size, over="step")


def _image_cases(session: BenchmarkSession, size: int) -> list[Case]:
    """Decoding and reading the images of a batch."""
    samples = session.train_set.samples[:size]
    workers = session.config.train.workers
    order = list(reversed(range(size)))
    uncached = session.dataset(samples, "none", workers=0)
    ram = session.dataset(samples, "ram", workers)
    disk = session.dataset(samples, "disk", workers)
    ram.prepare(progress=False)
    disk.prepare(progress=False)
    read_ram = partial(ram.canvases, order)

    def fill() -> None:
        session.dataset(samples, "ram", workers).prepare(progress=False)

    decode, read_disk = partial(uncached.canvases, order), partial(disk.canvases, order)
    return [
        _case("decode", "decode and letterbox, one thread", timed(decode), size),
        _case("fill", "decode into the cache, threads", timed(fill), size),
        _case("ram", "read from the memory cache", timed(read_ram, before=read_ram), size),
        _case("disk", "read from the disk cache", timed(read_disk), size),
    ]


def _batch_cases(session: BenchmarkSession, batches: BatchMaker) -> list[Case]:
    """Making batches, from cached canvases to the device."""
    size, seed = batches.batch_size, session.config.seed
    variants = {
        "batch": ("make a batch as configured", {}),
        "batch_plain": ("make a batch, no mosaic", {"mosaic": 0.0, "mixup": 0.0}),
        "batch_mosaic": ("make a batch, mosaic only", {"mosaic": 1.0}),
    }
    cases = []
    for key, (what, changes) in variants.items():
        augment = session.config.augment.model_copy(update=changes)
        maker = BatchMaker(session.train_set, augment, size, seed, session.device, batches.pool)
        clock = timed(partial(next, endless_batches(maker)), maker.steps, session.device)
        cases.append(_case(key, what, clock, size))
    return cases
