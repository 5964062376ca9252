"""Division: exact sizes, every class in its share, identical files together, names not order."""

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from dataset_files import Item, write_voc
from hypothesis import given
from hypothesis import strategies as st

from utils.core.errors import UserError
from utils.core.schema import DataConfig
from utils.data.loading import load_dataset
from utils.data.sample import Sample
from utils.data.splitting import divide, stratify


def drawn(name: str, labels: list[int]) -> Sample:
    boxes = np.tile(np.array([[0, 0, 5, 5]], np.float32), (len(labels), 1))
    return Sample(
        Path(name), 10, 10, boxes, np.array(labels, np.int64), draw=lambda: np.zeros((10, 10, 3))
    )


def images_with(samples: list[Sample], indices: list[int]) -> Counter[int]:
    return Counter(label for index in indices for label in set(samples[index].labels.tolist()))


def skewed(count: int, classes: int) -> list[Sample]:
    """Several classes per image; class k is half as frequent as class k - 1."""
    rng = np.random.default_rng(0)
    has = rng.random((count, classes)) < 0.5 ** np.arange(1, classes + 1)
    return [drawn(f"{index:05}", np.flatnonzero(row).tolist()) for index, row in enumerate(has)]


def test_every_class_has_its_share_in_exact_sizes():
    samples = skewed(1000, 8)
    splits = stratify(samples, (0.7, 0.2, 0.1), seed=0)
    assert [len(indices) for indices in splits] == [700, 200, 100]
    assert sorted(itertools.chain(*splits)) == list(range(1000))
    totals = images_with(samples, list(range(1000)))
    for indices, share in zip(splits, (0.7, 0.2, 0.1), strict=True):
        counts = images_with(samples, indices)
        for label, total in totals.items():
            assert abs(counts[label] - share * total) <= 1.5


def test_a_random_division_would_not_pass():
    samples = skewed(1000, 8)
    order = np.random.default_rng(0).permutation(1000)[:200].tolist()
    totals = images_with(samples, list(range(1000)))
    counts = images_with(samples, order)
    assert max(abs(counts[label] - 0.2 * total) for label, total in totals.items()) > 5


@given(
    labels=st.lists(st.lists(st.integers(0, 4), max_size=4), min_size=1, max_size=40),
    share=st.floats(0.05, 0.95),
    seed=st.integers(0, 9),
)
def test_sizes_are_exact_and_the_order_does_not_matter(
    labels: list[list[int]], share: float, seed: int
):
    samples = [drawn(f"{index:03}", item) for index, item in enumerate(labels)]
    train, val = divide(samples, share, seed)
    assert len(val) == round(share * len(samples))
    assert sorted(train + val) == list(range(len(samples)))
    names = {samples[index].path for index in val}
    turned = samples[::-1]
    assert {turned[index].path for index in divide(turned, share, seed)[1]} == names


def test_seeds_differ_and_repeat():
    samples = skewed(60, 3)
    divisions = [tuple(divide(samples, 0.3, seed)[1]) for seed in (0, 1, 2, 0)]
    assert divisions[0] == divisions[3] and len(set(divisions)) == 3


@pytest.mark.parametrize("seed", range(5))
def test_identical_files_stay_together(seed: int, tmp_path: Path):
    samples = []
    for index in range(30):  # 3k, 3k + 1 and 3k + 2 are identical
        path = tmp_path / f"{index:02}.png"
        path.write_bytes(bytes([index // 3]) * 100)
        samples.append(Sample(path, 5, 5, file_size=100))
    train, val = divide(samples, 0.3, seed)
    assert len(val) == 9 and len(train) == 21
    assert {index // 3 for index in train}.isdisjoint(index // 3 for index in val)


def test_too_few_images_to_divide_are_refused(tmp_path: Path):
    write_voc(tmp_path, [Item(f"{name}.png", (60, 40), [("cat", 3, 4, 20, 30)]) for name in "ab"])
    data = DataConfig(root=str(tmp_path))
    with pytest.raises(
        UserError, match=r"2 images: too few to divide with data\.val_share=0\.2"
    ) as caught:
        load_dataset(data, "val", (64, 64), progress=False)
    assert str(caught.value).startswith(f"data.root={tmp_path}: ")
