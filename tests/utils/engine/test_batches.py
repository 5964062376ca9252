"""Batches as pure functions of (seed, epoch, step)."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from utils.core.errors import UserError
from utils.core.schema import AugmentConfig
from utils.data.augmentation import Batch
from utils.data.dataset import DetectionDataset
from utils.data.sample import Sample
from utils.engine.batches import BatchMaker, generator_for, make_pool, resident_pool

SIZE = (32, 32)
PLAIN = AugmentConfig(mosaic=0, fliplr=0, scale=(1, 1), translate=0, hsv_h=0, hsv_s=0, hsv_v=0)
FULL = AugmentConfig(mosaic=0.5, mixup=0.3, degrees=5)


def flat(index: int) -> np.ndarray:
    """An image that tells its number by its gray, with a bright corner so that geometry shows."""
    image = np.full((*SIZE, 3), 10 * index, np.uint8)
    image[:8, :8] = 255
    return image


def samples(count: int) -> list[Sample]:
    boxes = np.array([[0, 0, 8, 8], [10, 10, 30, 30]], np.float32)
    return [
        Sample(
            Path(str(index)), SIZE[1], SIZE[0], boxes, np.array([index, 99]), np.zeros(2, bool),
            np.array([False, True]), partial(flat, index),
        )
        for index in range(count)
    ]  # fmt: skip


def maker(
    count: int = 10,
    batch_size: int = 4,
    seed: int = 0,
    config: AugmentConfig = FULL,
    workers: int = 0,
    multi_scale: float = 0.0,
    size: tuple[int, int] = SIZE,
) -> BatchMaker:
    dataset = DetectionDataset(samples(count), size, cache="none", workers=workers)
    cpu = torch.device("cpu")
    return BatchMaker(dataset, config, batch_size, seed, cpu, multi_scale=multi_scale)


def prints(batches: Iterable[Batch]) -> list[bytes]:
    """What identifies each batch, bit for bit."""
    return [
        b"".join(t.numpy().tobytes() for t in (batch.images, batch.boxes, batch.labels))
        for batch in batches
    ]


def test_the_same_seed_gives_the_same_batches() -> None:
    first, again = prints(maker().epoch(3, False)), prints(maker().epoch(3, False))
    assert first == again and len(set(first)) == len(first) == 2


@pytest.mark.parametrize("change", ["seed", "epoch", "closing"])
def test_another_seed_epoch_or_phase_gives_other_batches(change: str) -> None:
    first = prints(maker().epoch(0, False))
    other = prints(
        maker(seed=int(change == "seed")).epoch(int(change == "epoch"), change == "closing")
    )
    assert not set(first) & set(other)


def test_no_stream_repeats_over_seeds_epochs_and_steps() -> None:
    drawn = {
        generator_for(seed, epoch, step).initial_seed()
        for seed in range(5)
        for epoch in range(20)
        for step in range(9)
    }
    assert len(drawn) == 5 * 20 * 9
    assert generator_for(1, 2).initial_seed() != generator_for(2, 1).initial_seed()
    assert generator_for(1, 2).initial_seed() != generator_for(1, 2, 0).initial_seed()
    assert generator_for(-1, 2).initial_seed() != generator_for(1, 2).initial_seed()


def test_a_resumed_epoch_goes_on_where_the_whole_one_would() -> None:
    whole = prints(maker(17).epoch(5, False))
    assert len(whole) == 4
    for first_step in range(5):
        assert prints(maker(17).epoch(5, False, first_step)) == whole[first_step:]


def test_workers_change_nothing() -> None:
    assert prints(maker(workers=3).epoch(1, False)) == prints(maker(workers=0).epoch(1, False))


def shown(batches: Iterable[Batch]) -> list[int]:
    """The numbers of the images, read off their gray."""
    return [round(image[0, -1, -1].item() * 25.5) for batch in batches for image in batch.images]


def test_an_image_comes_at_most_once_an_epoch_with_its_own_object() -> None:
    batches = list(maker(config=PLAIN).epoch(0, False))
    seen = shown(batches)
    assert len(seen) == len(set(seen)) == 8  # two of ten fill no batch
    assert [label for batch in batches for label in batch.labels[:, 0].tolist()] == seen


def test_every_image_comes_in_some_epoch_and_orders_differ() -> None:
    plain = maker(config=PLAIN)
    orders = [tuple(shown(plain.epoch(epoch, False))) for epoch in range(6)]
    assert len(set(orders)) == 6
    assert set().union(*orders) == set(range(10))
    assert sorted(plain.order(0).tolist()) == list(range(10))


def test_mosaics_draw_from_the_whole_set() -> None:
    """The corners of a mosaic show its four tiles, the first one upper left."""
    mosaics = maker(20, config=PLAIN.model_copy(update={"mosaic": 1.0}))
    images = torch.cat([batch.images for batch in mosaics.epoch(0, False, 3)])
    corners = (images[:, 0][:, [0, 0, -1, -1], [0, -1, 0, -1]] * 25.5).round().int()
    assert corners[:, 0].tolist() == mosaics.order(0)[12:].tolist()
    assert len(corners.unique()) > 10


def test_crowds_teach_nothing() -> None:
    for config in (PLAIN, FULL):
        assert all((batch.labels != 99).all() for batch in maker(config=config).epoch(0, False))


def test_a_batch_larger_than_the_set_holds_the_set() -> None:
    small = maker(3, 16, config=PLAIN)
    assert small.steps == 1
    (batch,) = small.epoch(0, False)
    assert sorted(shown([batch])) == [0, 1, 2]


def test_batches_have_the_networks_layout() -> None:
    batch = next(maker().epoch(0, False))
    assert batch.images.shape == (4, 3, *SIZE) and batch.images.is_contiguous(
        memory_format=torch.channels_last
    )
    assert batch.boxes.shape == (*batch.labels.shape, 4) and batch.labels.dtype == torch.int64


@pytest.mark.parametrize("mixup", [0.0, 0.5])
def test_processes_make_the_rows_of_one_batch(
    mixup: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = FULL.model_copy(update={"mixup": mixup})
    whole = list(maker(12, 6, config=config).epoch(2, False))
    monkeypatch.setattr("utils.core.distributed.world_size", lambda: 3)
    for rank in range(3):
        monkeypatch.setattr("utils.core.distributed.rank", lambda own=rank: own)
        rows = slice(2 * rank, 2 * rank + 2)
        for part, batch in zip(maker(12, 6, config=config).epoch(2, False), whole, strict=True):
            assert torch.equal(part.images, batch.images[rows])
            for row, (boxes, labels) in enumerate(
                zip(batch.boxes[rows], batch.labels[rows], strict=True)
            ):
                there = labels >= 0
                assert torch.equal(part.labels[row][part.labels[row] >= 0], labels[there])
                assert torch.equal(part.boxes[row][part.labels[row] >= 0], boxes[there])


@pytest.mark.parametrize(("batch_size", "count"), [(7, 12), (8, 6)])
def test_a_batch_that_cannot_be_dealt_out_is_refused(
    batch_size: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("utils.core.distributed.world_size", lambda: 4)
    with pytest.raises(UserError, match="expected a multiple of the 4 processes"):
        maker(count, batch_size)


def test_images_resident_on_the_device_give_the_same_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("utils.engine.batches.CHUNK", 4)
    fetched, kept = maker(), maker()
    kept.pool = make_pool(kept.dataset, range(10), kept.device)
    assert kept.pool.canvases.shape[0] == 10 and kept.pool.counts.tolist() == [1] * 10
    assert prints(fetched.epoch(1, False)) == prints(kept.epoch(1, False))


def test_only_a_gpu_keeps_images_and_only_where_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = maker().dataset
    assert resident_pool(dataset, torch.device("cpu"), None) is None
    made = []
    monkeypatch.setattr("utils.engine.batches.make_pool", lambda *args: made.append(args) or "pool")
    needed = 10 * 3 * 32 * 32
    gpu = torch.device("cuda")
    for free, most_gb, fits in (
        (2 * needed, None, True),
        (2 * needed - 2, None, False),
        (0, needed / 2**30, True),
        (9**9, 0, False),
    ):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, free))
        assert (resident_pool(dataset, gpu, most_gb) == "pool") == fits
    assert [len(args[1]) for args in made] == [10, 10]


def test_every_step_has_another_size_and_boxes_follow() -> None:
    size = (128, 256)
    plain = list(maker(24, config=PLAIN, size=size).epoch(0, closing=False))
    scaled = list(maker(24, config=PLAIN, size=size, multi_scale=0.5).epoch(0, closing=False))
    sizes = {tuple(batch.images.shape[2:]) for batch in scaled}
    assert len(sizes) > 2
    for height, width in sizes:
        assert height % 32 == width % 32 == 0 and 64 <= height <= 192 and 128 <= width <= 384
    for before, after in zip(plain, scaled, strict=True):
        y, x = (a / b for a, b in zip(after.images.shape[2:], before.images.shape[2:], strict=True))
        assert torch.equal(after.labels, before.labels)
        torch.testing.assert_close(after.boxes, before.boxes * torch.tensor([x, y, x, y]))
        torch.testing.assert_close(after.images.mean(), before.images.mean(), atol=0.02, rtol=0)


def test_sizes_follow_the_seed_and_the_last_epochs_have_the_size_of_the_dataset() -> None:
    again, resumed = (list(maker(multi_scale=0.5).epoch(1, False, step)) for step in (0, 1))
    assert prints(again[1:]) == prints(resumed)
    closing = maker(multi_scale=0.5, size=(128, 128)).epoch(0, closing=True)
    assert {tuple(batch.images.shape[2:]) for batch in closing} == {(128, 128)}
