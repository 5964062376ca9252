"""Dividing the images of a dataset that has no validation split."""

from collections.abc import Sequence

import numpy as np

from utils.data.duplicates import identical_files
from utils.data.sample import Sample


def divide(samples: Sequence[Sample], val_share: float, seed: int) -> tuple[list[int], list[int]]:
    """Divide images at random; files with the same content stay together.

    The result depends on the names of the files, not on their order.

    Args:
        samples: the images.
        val_share: share of the validation images, 0..1.
        seed: another one gives another division.

    Returns:
        Indices of the training images and of the validation images, each in order.
    """
    group_of = {sample.path: sample.path for sample in samples}
    files = {sample.path: sample.file_size for sample in samples if sample.draw is None}
    for original, duplicate in identical_files(files):
        group_of[duplicate] = group_of[original]
    groups: dict[object, list[int]] = {}
    for index in sorted(range(len(samples)), key=lambda index: samples[index].path):
        groups.setdefault(group_of[samples[index].path], []).append(index)
    order = np.random.default_rng(seed).permutation(len(groups))
    members = list(groups.values())
    wanted = round(val_share * len(samples))
    val: list[int] = []
    for number in order.tolist():
        if len(val) >= wanted:
            break
        val += members[number]
    chosen = set(val)
    return [index for index in range(len(samples)) if index not in chosen], sorted(chosen)
