"""Data order and training batches, as pure functions of (seed, epoch, step)."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.profiler import record_function

from nets.yolo.box_coder import STRIDES
from utils.core import distributed
from utils.core.bounded_queue import prefetch
from utils.core.devices import to_device
from utils.core.errors import UserError
from utils.core.progress import progress_bar
from utils.core.schema import AugmentConfig
from utils.data.augmentation import Augmenter, Batch, ImagePool
from utils.data.dataset import DetectionDataset, pad_targets

SIZE_STREAM = 2  # keeps the draws of the size apart from those of the augmentation
CHUNK = 512  # images decoded and copied at a time


def generator_for(*key: int) -> torch.Generator:
    """Return a CPU generator seeded by the whole key; different keys give unrelated streams."""
    # the length is included because SeedSequence treats (1, 2) and (1, 2, 0) alike
    sequence = np.random.SeedSequence([len(key), *(value % 2**32 for value in key)])
    return torch.Generator().manual_seed(int(sequence.generate_state(1, np.uint64)[0]))


class BatchMaker:
    """Makes the training batches. With several processes, each makes its own rows of every batch.

    No state is carried from one step to the next: a resumed run sees the same batches, whatever the
    number of decoding workers.

    Args:
        dataset: the training images.
        config: augmentation.
        batch_size: images per step, over all processes.
        seed: determines the order, the mosaics and the distortions.
        device: device on which batches are made.
        pool: all images, if they fit on the device; None: each batch loads what it needs.
        multi_scale: share by which the size of a batch may be smaller or larger than that of the
            dataset; not in the closing epochs.
        parts: number of passes that a step is divided into; all processes share each of them.

    Raises:
        UserError: the processes cannot share a batch evenly.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        config: AugmentConfig,
        batch_size: int,
        seed: int,
        device: torch.device,
        pool: ImagePool | None = None,
        multi_scale: float = 0.0,
        parts: int = 1,
    ) -> None:
        self.dataset = dataset
        self.multi_scale = multi_scale
        self.config = config
        self.batch_size = min(batch_size, len(dataset))
        self.seed = seed
        self.device = device
        self.pool = pool
        self.rows = _rows_of_this_process(self.batch_size, parts)

    @property
    def steps(self) -> int:
        """Steps per epoch; images that do not fill a batch are left to another epoch's order."""
        return len(self.dataset) // self.batch_size

    def order(self, epoch: int) -> Tensor:
        """The permutation of the images in an epoch, int64 `(n,)`."""
        return torch.randperm(len(self.dataset), generator=generator_for(self.seed, epoch))

    def image_names(self, epoch: int, step: int) -> list[str]:
        """The images that a step is made of, apart from those that only fill mosaics."""
        indices = self.order(epoch)[step * self.batch_size : (step + 1) * self.batch_size]
        return [str(self.dataset.samples[index].path) for index in indices.tolist()]

    def epoch(self, epoch: int, closing: bool, first_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch.

        Args:
            epoch: its index.
            closing: leave out mosaic and mixup.
            first_step: where to start.
        """
        batches = self._epoch(epoch, closing, first_step)
        # decoding and copying overlap with a GPU's work; a CPU would only compete with itself
        return prefetch(batches) if self.device.type == "cuda" and self.pool is None else batches

    def _epoch(self, epoch: int, closing: bool, first_step: int) -> Iterator[Batch]:
        augmenter = Augmenter(self.config, closing)
        order = self.order(epoch)
        for step in range(first_step, self.steps):
            indices = order[step * self.batch_size : (step + 1) * self.batch_size]
            with record_function("batch"):
                batch = self._make(indices, augmenter, generator_for(self.seed, epoch, step))
                if self.multi_scale and not closing:
                    batch = batch.resize(self._draw_size(epoch, step))
            yield batch

    def _draw_size(self, epoch: int, step: int) -> tuple[int, int]:
        """The (height, width) of a step, multiples of the largest stride."""
        generator = generator_for(self.seed, epoch, step, SIZE_STREAM)
        factor = 1 + self.multi_scale * (2 * torch.rand((), generator=generator).item() - 1)
        stride = max(STRIDES)
        height, width = (
            max(1, round(side * factor / stride)) * stride for side in self.dataset.input_size
        )
        return height, width

    def _make(self, indices: Tensor, augmenter: Augmenter, generator: torch.Generator) -> Batch:
        """Make this process's rows of the batch of `indices`, int64 `(B,)`."""
        partners = augmenter.mosaic_partners(len(indices), len(self.dataset), generator)
        tiles = torch.cat([indices[:, None], partners], 1)  # (B, 4) indices into the dataset
        if self.pool:
            return augmenter(self.pool, tiles, generator, self.rows)
        needed = tiles[augmenter.rows_needed(self.rows, len(indices))]
        loaded = needed[needed >= 0].unique()
        # rows that only other processes need may point anywhere
        positions = torch.searchsorted(loaded, tiles).clamp(max=len(loaded) - 1)
        pool = make_pool(self.dataset, loaded.tolist(), self.device)
        return augmenter(pool, torch.where(tiles >= 0, positions, -1), generator, self.rows)


def _rows_of_this_process(batch_size: int, parts: int) -> list[int]:
    processes = distributed.world_size()
    if processes == 1:
        return list(range(batch_size))
    each, rest = divmod(batch_size, processes * parts)
    if rest or not each:
        passes = f", for each of {parts} passes" if parts > 1 else ""
        raise UserError(
            f"train.batch_size: expected a multiple of the {processes} processes{passes}, got "
            f"{batch_size} images per step (limited to the number of images)"
        )
    firsts = [each * (processes * part + distributed.rank()) for part in range(parts)]
    return [first + index for first in firsts for index in range(each)]


def resident_pool(
    dataset: DetectionDataset, device: torch.device, limit_gb: float | None
) -> ImagePool | None:
    """Load all images into a GPU's memory.

    Args:
        dataset: the images.
        device: the GPU.
        limit_gb: maximum memory for them, in GiB; None: half of the free memory.

    Returns:
        The images, or None if they do not fit or the device is not a GPU.
    """
    if device.type != "cuda":
        return None
    needed = len(dataset) * 3 * dataset.input_size[0] * dataset.input_size[1]
    limit = torch.cuda.mem_get_info(device)[0] / 2 if limit_gb is None else limit_gb * 2**30
    return make_pool(dataset, range(len(dataset)), device) if needed <= limit else None


def make_pool(dataset: DetectionDataset, indices: Sequence[int], device: torch.device) -> ImagePool:
    """Load images and their objects onto the device; crowd regions are not training targets."""
    boxes, labels, counts = [], [], []
    for index in indices:
        single = ~dataset.crowd[index]
        boxes.append(dataset.boxes[index][single])
        labels.append(dataset.labels[index][single])
        counts.append(len(labels[-1]))
    content = [dataset.letterboxes[index].content for index in indices]
    padded_boxes, padded_labels = pad_targets(boxes, labels)
    return ImagePool(
        _load_canvases(dataset, indices, device),
        to_device(padded_boxes, device),
        to_device(padded_labels, device),
        torch.tensor(counts, dtype=torch.int64),
        to_device(torch.tensor(content, dtype=torch.float32), device),
    )


def _load_canvases(
    dataset: DetectionDataset, indices: Sequence[int], device: torch.device
) -> Tensor:
    """Letterboxed images on the device, uint8 `(n, H, W, 3)`, copied chunk by chunk."""
    first = to_device(torch.from_numpy(dataset.canvases(indices[:CHUNK])), device)
    if len(indices) <= CHUNK:
        return first
    canvases = first.new_empty((len(indices), *first.shape[1:]))
    canvases[:CHUNK] = first
    for start in progress_bar(range(CHUNK, len(indices), CHUNK), desc="images to the GPU"):
        chunk = torch.from_numpy(dataset.canvases(indices[start : start + CHUNK]))
        canvases[start : start + CHUNK].copy_(to_device(chunk, device))
    return canvases
