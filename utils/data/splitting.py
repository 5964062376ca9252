"""Dividing the images of a dataset into splits in which every class has its share.

Iterative stratification: Sechidis, Tsoumakas, Vlahavas: "On the Stratification of Multi-Label
Data", ECML PKDD 2011, algorithm 1. Here the sizes of the splits are exact.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from utils.data.duplicates import identical_files
from utils.data.sample import Sample


def divide(samples: Sequence[Sample], val_share: float, seed: int) -> tuple[list[int], list[int]]:
    """Divide images at random into a training and a validation split; see `stratify`.

    Args:
        samples: the images.
        val_share: share of the validation images, 0..1.
        seed: another one gives another division.

    Returns:
        Indices of the training images and of the validation images, each in order.
    """
    train, val = stratify(samples, (1 - val_share, val_share), seed)
    return train, val


def stratify(samples: Sequence[Sample], shares: Sequence[float], seed: int) -> list[list[int]]:
    """Divide images at random; of each class, every split gets its share of the images.

    Files with the same content stay together. The result depends on the names of the files and on
    their labels, not on their order.

    Args:
        samples: the images.
        shares: share of each split, 0..1; together 1.
        seed: another one gives another division.

    Returns:
        For each split, the indices of its images, in order.
    """
    groups = _identical(samples)
    contents = [_images_with(samples, members) for members in groups]
    chosen = _Stratifier(contents, [len(members) for members in groups], shares, seed).run()
    splits: list[list[int]] = [[] for _ in shares]
    for members, split in zip(groups, chosen, strict=True):
        splits[split] += members
    return [sorted(indices) for indices in splits]


def _identical(samples: Sequence[Sample]) -> list[list[int]]:
    """Indices of the images, those of identical files together, in the order of the names."""
    group_of = {sample.path: sample.path for sample in samples}
    files = {sample.path: sample.file_size for sample in samples if sample.draw is None}
    for original, duplicate in identical_files(files):
        group_of[duplicate] = group_of[original]
    groups: dict[object, list[int]] = {}
    for index in sorted(range(len(samples)), key=lambda index: samples[index].path):
        groups.setdefault(group_of[samples[index].path], []).append(index)
    return list(groups.values())


def _images_with(samples: Sequence[Sample], members: Sequence[int]) -> Counter[int]:
    """Class index -> number of images that have an object of it."""
    counts: Counter[int] = Counter()
    for index in members:
        counts.update(set(samples[index].labels.tolist()))
    return counts


class _Stratifier:
    """Gives groups of images to splits, the images of the rarest class first.

    Args:
        contents: per group, class index -> number of images with it.
        sizes: per group, the number of images.
        shares: share of each split.
        seed: seed of the order of the groups, and of ties.
    """

    def __init__(
        self,
        contents: Sequence[Counter[int]],
        sizes: Sequence[int],
        shares: Sequence[float],
        seed: int,
    ) -> None:
        self.contents = contents
        self.sizes = sizes
        self.rng = np.random.default_rng(seed)
        self.chosen = [-1] * len(sizes)
        self.room = [round(share * sum(sizes)) for share in shares]  # images that are missing
        self.room[0] = sum(sizes) - sum(self.room[1:])
        self.groups_with: dict[int, list[int]] = {}
        totals: Counter[int] = Counter()
        for group in self.rng.permutation(len(sizes)).tolist():
            totals.update(contents[group])
            for label in contents[group]:
                self.groups_with.setdefault(label, []).append(group)
        # per split, class index -> images with it that are missing
        self.wanted = [{label: share * totals[label] for label in totals} for share in shares]
        self.left = Counter({label: len(groups) for label, groups in self.groups_with.items()})

    def run(self) -> list[int]:
        """The split of each group."""
        while self.left:
            label = min(self.left, key=lambda label: (self.left[label], label))
            for group in self.groups_with[label]:
                if self.chosen[group] < 0:
                    self._give(group, label)
        for group in self.rng.permutation(len(self.sizes)).tolist():
            if self.chosen[group] < 0:  # images without objects
                self._give(group, None)
        return self.chosen

    def _give(self, group: int, label: int | None) -> None:
        """Give a group to the split with room that misses the class most, then images most."""
        ties = self.rng.permutation(len(self.room)).tolist()

        def need(split: int) -> tuple[bool, float, int, int]:
            wanted = 0.0 if label is None else round(self.wanted[split][label], 6)
            return self.room[split] > 0, wanted, self.room[split], ties[split]

        split = max(range(len(self.room)), key=need)
        self.chosen[group] = split
        self.room[split] -= self.sizes[group]
        for present, count in self.contents[group].items():
            self.wanted[split][present] -= count
            self.left[present] -= 1
            if not self.left[present]:
                del self.left[present]
