"""The order of the data and the batches made from it, as pure functions of (seed, epoch, step)."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.profiler import record_function

from utils.core import distributed
from utils.core.bounded_queue import prefetch
from utils.core.devices import to_device
from utils.core.errors import UserError
from utils.core.progress import progress_bar
from utils.core.schema import AugmentConfig
from utils.data.augmentation import Augmenter, Batch, Pool
from utils.data.dataset import DetectionDataset, pad_targets

CHUNK = 512  # images that are decoded and copied at a time


def generator_for(*key: int) -> torch.Generator:
    """A CPU generator that depends on the whole key; keys that differ anywhere give unrelated streams."""
    # the length goes in, too: a SeedSequence takes (1, 2) and (1, 2, 0) for the same
    state = np.random.SeedSequence([len(key), *(value % 2**32 for value in key)]).generate_state(
        1, np.uint64
    )[0]
    return torch.Generator().manual_seed(int(state))


class BatchMaker:
    """Makes the training batches; of several processes, each makes its own rows of every batch.

    Nothing is carried over from one step to the next, so a resumed run sees the batches of an undisturbed one, and
    the number of decoding workers changes nothing.

    Args:
        images: the training set. config: augmentation. batch_size: images a step, over all processes.
        seed: another seed gives another order, other mosaics and other distortions.
        device: where batches are made.
        pool: all images, where the device holds them; none: each batch fetches what it needs.

    Raises:
        UserError: the processes cannot share a batch evenly.
    """

    def __init__(
        self,
        pictures: DetectionDataset,
        config: AugmentConfig,
        batch_size: int,
        seed: int,
        device: torch.device,
        pool: Pool | None = None,
    ) -> None:
        self.pictures = pictures
        self.config = config
        self.batch_size = min(batch_size, len(pictures))
        self.seed = seed
        self.device = device
        self.pool = pool
        self.part = _part(self.batch_size)

    @property
    def steps(self) -> int:
        """Steps an epoch; what does not fill a batch waits for another epoch's order."""
        return len(self.pictures) // self.batch_size

    def order(self, epoch: int) -> Tensor:
        """The permutation of the images in an epoch, int64 `(n,)`."""
        return torch.randperm(len(self.pictures), generator=generator_for(self.seed, epoch))

    def epoch(self, epoch: int, closing: bool, first_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from `first_step` on; `closing` leaves mosaic and mixup out."""
        batches = self._epoch(epoch, closing, first_step)
        # decoding and copying go on while a GPU computes; a CPU has nothing else to do
        return prefetch(batches) if self.device.type == "cuda" and self.pool is None else batches

    def _epoch(self, epoch: int, closing: bool, first_step: int) -> Iterator[Batch]:
        augmenter = Augmenter(self.config, closing)
        order = self.order(epoch)
        for step in range(first_step, self.steps):
            own = order[step * self.batch_size : (step + 1) * self.batch_size]
            with record_function("batch"):
                batch = self._make(own, augmenter, generator_for(self.seed, epoch, step))
            yield batch

    def _make(self, own: Tensor, augmenter: Augmenter, generator: torch.Generator) -> Batch:
        partners = augmenter.partners(len(own), len(self.pictures), generator)
        tiles = torch.cat([own[:, None], partners], 1)  # (B, 4) dataset indices
        if self.pool:
            return augmenter(self.pool, tiles, generator, self.part)
        needed = tiles[augmenter.needed(self.part, len(own))]
        indices = needed[needed >= 0].unique()
        # rows that only other processes need point anywhere
        places = torch.searchsorted(indices, tiles).clamp(max=len(indices) - 1)
        pool = make_pool(self.pictures, indices.tolist(), self.device)
        return augmenter(pool, torch.where(tiles >= 0, places, -1), generator, self.part)


def _part(batch_size: int) -> range:
    """The rows of this process."""
    each, rest = divmod(batch_size, distributed.world_size())
    if rest or not each:
        raise UserError(
            f"train.batch_size: expected a multiple of the {distributed.world_size()} processes, got {batch_size} "
            "(no more than there are images)"
        )
    return range(each * distributed.rank(), each * (distributed.rank() + 1))


def resident_pool(
    pictures: DetectionDataset, device: torch.device, most_gb: float | None
) -> Pool | None:
    """All images in a GPU's memory; none where they do not fit, or the device is no GPU.

    Args:
        most_gb: most memory for them, GiB; none: half of what is free.
    """
    if device.type != "cuda":
        return None
    needed = len(pictures) * 3 * pictures.input_size[0] * pictures.input_size[1]
    room = torch.cuda.mem_get_info(device)[0] / 2 if most_gb is None else most_gb * 2**30
    return make_pool(pictures, range(len(pictures)), device) if needed <= room else None


def make_pool(pictures: DetectionDataset, indices: Sequence[int], device: torch.device) -> Pool:
    """Images and their objects on the device; a crowd region is no single object and teaches nothing."""
    chunks = [indices[start : start + CHUNK] for start in range(0, len(indices), CHUNK)]
    canvases = to_device(torch.from_numpy(pictures.canvases(chunks[0])), device)
    if len(chunks) > 1:
        chunk, canvases = canvases, canvases.new_empty((len(indices), *canvases.shape[1:]))
        canvases[:CHUNK] = chunk
        for number in progress_bar(range(1, len(chunks)), desc="images to the GPU"):
            own = canvases[number * CHUNK : (number + 1) * CHUNK]
            own.copy_(to_device(torch.from_numpy(pictures.canvases(chunks[number])), device))
    single = [~pictures.crowd[index] for index in indices]
    boxes = [pictures.boxes[index][keep] for index, keep in zip(indices, single, strict=True)]
    labels = [pictures.labels[index][keep] for index, keep in zip(indices, single, strict=True)]
    corners, classes = (to_device(tensor, device) for tensor in pad_targets(boxes, labels))
    return Pool(
        canvases,
        corners,
        classes,
        torch.tensor([len(label) for label in labels], dtype=torch.int64),
    )
