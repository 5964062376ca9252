"""Decoded, letterboxed images with a cache, and their targets in input pixels."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils.core.errors import UserError
from utils.core.images import PAD_VALUE, Letterbox, decode_image
from utils.core.progress import progress_bar
from utils.data import disk_cache
from utils.data.checks import Report
from utils.data.sample import Sample

WHOLE, TRUNCATED, UNDECODABLE = 0, 1, 2  # state of an image's file
CACHE_DIR = Path(".cache") / "images"
AHEAD = 64  # decoded images that may wait for their place in the cache


class DetectionDataset:
    """Images of one data split, letterboxed to uint8 canvases.

    The canvases are the same bit for bit for every `cache` and every `workers`. An image that no decoder reads
    becomes a gray canvas without boxes, one that is truncated is used as far as it goes; both are counted in
    `report`: by `prepare` if the cache holds the image, else when it is decoded first.

    Args:
        records: the pictures.
        size: (height, width) of the canvases, pixels.
        cache: `ram`; `disk` (shared between processes and later runs); `none`, decode on every use.
        cache_gb: most memory or disk for the cache, GiB. Images beyond it are decoded on every use.
        workers: decoding threads; 0 and 1 mean 2 while the cache is filled and 1 afterwards.
        cache_dir: folder of the disk caches, default `.cache/pictures` in the working directory.
        report: where to count undecodable and truncated files; a new one if not given.
        class_names: what the labels index.

    Attributes:
        boxes: per image float32 `(n, 4)`, xyxy in input pixels.
        labels: int64 `(n,)`. difficult, crowd: bool `(n,)`.
        letterboxes: the map between image and input pixels.
        notices: lines that the user should see (cache too small, disk full), filled by `prepare`.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        size: tuple[int, int],
        cache: str = "ram",
        cache_gb: float = 4.0,
        workers: int = 0,
        cache_dir: str | Path | None = None,
        report: Report | None = None,
        class_names: Sequence[str] = (),
    ) -> None:
        self.samples = list(samples)
        self.size = size
        self.cache = cache
        self.cache_gb = cache_gb
        self.workers = workers
        self.cache_dir = Path(cache_dir or CACHE_DIR)
        self.report = Report() if report is None else report
        self.class_names = tuple(class_names)
        self.notices: list[str] = []
        self.letterboxes = [
            Letterbox((sample.height, sample.width), size) for sample in self.samples
        ]
        pairs = list(zip(self.letterboxes, self.samples, strict=True))
        self.boxes = [letterbox.boxes_to_input(sample.boxes) for letterbox, sample in pairs]
        self.labels = [sample.labels for sample in self.samples]
        self.difficult = [sample.difficult for sample in self.samples]
        self.crowd = [sample.crowd for sample in self.samples]
        self._cached: np.ndarray | None = None  # (m, h, w, 3), the first m images
        self._damaged: set[int] = set()

    def __len__(self) -> int:
        return len(self.samples)

    def canvases(self, indices: Sequence[int]) -> np.ndarray:
        """The images `indices` as RGB uint8 `(n, height, width, 3)`, a new array.

        Read `boxes` and `labels` afterwards: an image that turns out to be undecodable loses its objects.
        """
        out = np.empty((len(indices), *self.size, 3), np.uint8)
        missing = []
        for place, index in enumerate(indices):
            if self._cached is not None and index < len(self._cached):
                out[place] = self._cached[index]
            else:
                missing.append(place)
        if missing:
            decoded = self._decode_missing([indices[place] for place in missing])
            for place, (canvas, state) in zip(missing, decoded, strict=True):
                out[place] = canvas
                self._note(indices[place], state)
        return out

    def prepare(self, progress: bool = True) -> None:
        """Fill the cache: decode every image that fits in it, or open the disk cache of an earlier run."""
        room = int(self.cache_gb * 2**30 // (self.size[0] * self.size[1] * 3))
        count = min(room, len(self)) if self.cache != "none" else 0
        if not count:
            return
        if count < len(self):
            self.notices.append(
                f"data.cache_gb={self.cache_gb:g} holds {count} of {len(self)} images; the others are decoded anew"
            )
        pictures, states = (
            self._from_disk(count, progress)
            if self.cache == "disk"
            else self._into_ram(count, progress)
        )
        self._cached = pictures
        for index, state in enumerate(states):
            self._note(index, int(state))

    def _into_ram(self, count: int, progress: bool) -> tuple[np.ndarray, np.ndarray]:
        pictures = np.empty((count, *self.size, 3), np.uint8)
        states = np.empty(count, np.uint8)
        for index, (canvas, state) in enumerate(self._decode_all(count, progress)):
            pictures[index], states[index] = canvas, state
        return pictures, states

    def _from_disk(self, count: int, progress: bool) -> tuple[np.ndarray | None, np.ndarray]:
        path = self.cache_dir / f"{disk_cache.key(self.samples[:count], self.size)}.bin"
        if not disk_cache.is_complete(path, count, self.size):
            try:
                disk_cache.write(path, self._decode_all(count, progress))
            except OSError as error:
                reason = error.strerror or str(error)
                self.notices.append(
                    f"data.cache=disk: cannot write {path} ({reason}); images are decoded anew"
                )
                return None, np.zeros(0, np.uint8)
        return disk_cache.open_shared(path, count, self.size)

    def _decode_all(self, count: int, progress: bool) -> Iterator[tuple[np.ndarray, int]]:
        """The first `count` images in order, a few ahead of their use in threads."""
        bar = progress_bar(desc="decoding images", total=count, show=progress)
        with bar, ThreadPoolExecutor(max(self.workers, 2)) as pool:
            for start in range(0, count, AHEAD):
                for pair in pool.map(self._decode, range(start, min(start + AHEAD, count))):
                    bar.update()
                    yield pair

    def _decode_missing(self, indices: list[int]) -> list[tuple[np.ndarray, int]]:
        if self.workers < 2 or len(indices) < 2:
            return [self._decode(index) for index in indices]
        with ThreadPoolExecutor(self.workers) as pool:
            return list(pool.map(self._decode, indices))

    def _decode(self, index: int) -> tuple[np.ndarray, int]:
        """(canvas uint8 `(h, w, 3)`, state of the file)."""
        sample = self.samples[index]
        try:
            image, whole = (sample.draw(), True) if sample.draw else decode_image(sample.path)
        except UserError:
            return np.full((*self.size, 3), PAD_VALUE, np.uint8), UNDECODABLE
        return self.letterboxes[index].apply(image), WHOLE if whole else TRUNCATED

    def _note(self, index: int, state: int) -> None:
        """Count a damaged file once; an undecodable one loses its objects."""
        if state == WHOLE or index in self._damaged:
            return
        self._damaged.add(index)
        if state == TRUNCATED:
            self.report.note("image truncated", self.samples[index].path)
            return
        self.report.note("image undecodable", self.samples[index].path)
        for column in (self.boxes, self.labels, self.difficult, self.crowd):
            column[index] = column[index][:0]


def pad_targets(boxes: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Targets of a batch as two tensors.

    Args:
        boxes: per image `(n, 4)` xyxy. labels: per image `(n,)`.

    Returns:
        boxes float32 `(B, M, 4)`, 0 where there is none; labels int64 `(B, M)`, -1 where there is none. M is the
        largest n, at least 1.
    """
    most = max([1, *map(len, labels)])
    padded = torch.zeros(len(boxes), most, 4)
    classes = torch.full((len(boxes), most), -1, dtype=torch.int64)
    for row, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        padded[row, : len(box)] = torch.from_numpy(np.asarray(box, np.float32))
        classes[row, : len(label)] = torch.from_numpy(np.asarray(label, np.int64))
    return padded, classes
