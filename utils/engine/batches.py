"""The order of the data and the batches made from it, as pure functions of (seed, epoch, step)."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from utils.data.augment import Augmenter, Batch
from utils.data.dataset import PictureSet, pad_targets
from utils.schema import Augment


def generator_for(*key: int) -> torch.Generator:
    """A CPU generator that depends on the whole key; keys that differ anywhere give unrelated streams."""
    # the length goes in, too: a SeedSequence takes (1, 2) and (1, 2, 0) for the same
    state = np.random.SeedSequence([len(key), *(value % 2**32 for value in key)]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state))


@dataclass(frozen=True)
class BatchPlan:
    """The pictures of one step: `tiles` int64 `(B, 4)`, indices into the data set, -1 where a picture is no mosaic."""

    step: int
    tiles: Tensor


class BatchMaker:
    """Makes the training batches.

    Nothing is carried over from one step to the next, so a resumed run sees the batches of an undisturbed one, and
    the number of decoding workers changes nothing.

    Args:
        pictures: the training set. config: augmentation. batch_size: pictures a step.
        seed: another seed gives another order, other mosaics and other distortions.
        device: where batches are made.
    """

    def __init__(self, pictures: PictureSet, config: Augment, batch_size: int, seed: int, device: torch.device) -> None:
        self.pictures = pictures
        self.config = config
        self.batch_size = min(batch_size, len(pictures))
        self.seed = seed
        self.device = device

    @property
    def steps(self) -> int:
        """Steps an epoch; what does not fill a batch waits for another epoch's order."""
        return len(self.pictures) // self.batch_size

    def order(self, epoch: int) -> Tensor:
        """The permutation of the pictures in an epoch, int64 `(n,)`."""
        return torch.randperm(len(self.pictures), generator=generator_for(self.seed, epoch))

    def epoch(self, epoch: int, closing: bool, first_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from `first_step` on; `closing` leaves mosaic and mixup out."""
        augmenter = Augmenter(self.config, closing)
        order = self.order(epoch)
        for step in range(first_step, self.steps):
            own = order[step * self.batch_size : (step + 1) * self.batch_size]
            yield self._make(own, augmenter, generator_for(self.seed, epoch, step))

    def _make(self, own: Tensor, augmenter: Augmenter, generator: torch.Generator) -> Batch:
        partners = augmenter.partners(len(own), len(self.pictures), generator)
        needed = torch.cat([own[:, None], partners], 1)  # (B, 4) data set indices
        unique, position = needed.clamp(min=0).unique(return_inverse=True)
        tiles = torch.where(needed >= 0, position, -1)
        indices = unique.tolist()
        canvases = torch.from_numpy(self.pictures.canvases(indices)).to(self.device, non_blocking=True)
        boxes, labels = pad_targets(*self._targets(indices))
        return augmenter(canvases, boxes.to(self.device), labels.to(self.device), tiles, generator)

    def _targets(self, indices: list[int]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Objects of each picture; a crowd region is no single object and teaches nothing."""
        single = [~self.pictures.crowd[index] for index in indices]
        boxes = [self.pictures.boxes[index][keep] for index, keep in zip(indices, single, strict=True)]
        labels = [self.pictures.labels[index][keep] for index, keep in zip(indices, single, strict=True)]
        return boxes, labels
