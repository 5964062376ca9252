"""Decoded, letterboxed images with a cache, and their targets in input pixels."""

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from utils.core.errors import UserError
from utils.core.images import PAD_VALUE, FileState, Letterbox, decode_image
from utils.core.inputs import ReadError, read_file, wait_out
from utils.core.outputs import WriteError
from utils.core.progress import progress_bar
from utils.data import disk_cache
from utils.data.dataset_report import DAMAGE, DatasetReport
from utils.data.sample import Sample

CACHE_DIR = Path(".cache") / "images"
DECODE_AHEAD = 64  # decoded images that may wait to be cached


class DetectionDataset:
    """Images of one split, letterboxed to uint8 canvases, with their targets.

    The canvases are bit-identical for every `cache` and every `workers`. An image that cannot be
    decoded becomes a gray canvas without objects; the intact part of a truncated image is used.
    Both are counted in `report`: by `prepare` if the cache holds the image, otherwise when the
    image is first decoded.

    Args:
        samples: images with their labels.
        input_size: (height, width) of the canvases, in pixels.
        cache: `ram`, `disk` (shared between processes and later runs), or `none` (decode every
            time).
        cache_gb: maximum size of the cache, in GiB. Images beyond it are decoded every time.
        workers: decoding threads; 0 and 1 mean 2 while the cache is filled and 1 afterwards.
        cache_dir: folder of the disk caches; default: `.cache/images` in the working directory.
        report: report that counts undecodable and truncated files; default: a new report.
        class_names: what the labels index.
        read_timeout: seconds to wait for an image file that can no longer be read, as in a short
            failure of a network file system.

    Attributes:
        boxes: per image, float32 `(n, 4)`, xyxy in input pixels.
        labels: per image, int64 `(n,)`.
        difficult: per image, bool `(n,)`.
        crowd: per image, bool `(n,)`.
        letterboxes: per image, the map between image and input pixels.
        notices: lines that the user should see (cache too small, disk full), filled by `prepare`.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        input_size: tuple[int, int],
        *,
        cache: str = "ram",
        cache_gb: float = 4.0,
        workers: int = 0,
        cache_dir: str | Path | None = None,
        report: DatasetReport | None = None,
        class_names: Sequence[str] = (),
        read_timeout: float = 30.0,
    ) -> None:
        self.samples = list(samples)
        self.input_size = input_size
        self.cache = cache
        self.cache_gb = cache_gb
        self.workers = workers
        self.cache_dir = Path(cache_dir or CACHE_DIR)
        self.report = DatasetReport() if report is None else report
        self.class_names = tuple(class_names)
        self.read_timeout = read_timeout
        self.notices: list[str] = []
        self.letterboxes: list[Letterbox] = []
        self.boxes: list[np.ndarray] = []
        for sample in self.samples:
            letterbox = Letterbox((sample.height, sample.width), input_size)
            self.letterboxes.append(letterbox)
            self.boxes.append(letterbox.boxes_to_input(sample.boxes))
        self.labels = [sample.labels for sample in self.samples]
        self.difficult = [sample.difficult for sample in self.samples]
        self.crowd = [sample.crowd for sample in self.samples]
        self._cached: np.ndarray | None = None  # (m, height, width, 3), the first m images
        self._damaged: set[int] = set()  # indices of images already counted in the report

    def __len__(self) -> int:
        return len(self.samples)

    def count_objects(self) -> np.ndarray:
        """The number of objects of each class, without crowd regions, int64 `(C,)`."""
        pairs = zip(self.labels, self.crowd, strict=True)
        labels = [np.zeros(0, np.int64), *(labels[~crowd] for labels, crowd in pairs)]
        return np.bincount(np.concatenate(labels), minlength=len(self.class_names))

    def canvases(self, indices: Sequence[int]) -> np.ndarray:
        """The letterboxed images at `indices`.

        Read `boxes` and `labels` afterwards: an image that turns out to be undecodable loses its
        objects.

        Returns:
            A new array, RGB uint8 `(n, height, width, 3)`.

        Raises:
            ReadError: an image file can no longer be read, or has changed.
        """
        canvases = np.empty((len(indices), *self.input_size, 3), np.uint8)
        missing = []
        for row, index in enumerate(indices):
            if self._cached is not None and index < len(self._cached):
                canvases[row] = self._cached[index]
            else:
                missing.append(row)
        if missing:
            decoded = self._decode_some([indices[row] for row in missing])
            for row, (canvas, state) in zip(missing, decoded, strict=True):
                canvases[row] = canvas
                self._report_state(indices[row], state)
        return canvases

    def prepare(self, progress: bool = True) -> None:
        """Fill the cache: decode the images that fit in it, or open an earlier disk cache."""
        if self.cache == "none":
            return
        height, width = self.input_size
        capacity = int(self.cache_gb * 2**30 // (height * width * 3))
        count = min(capacity, len(self))
        if not count:
            return
        if count < len(self):
            self.notices.append(
                f"data.cache_gb={self.cache_gb:g} holds {count} of {len(self)} images; "
                "the others are decoded every time"
            )
        fill = self._fill_disk_cache if self.cache == "disk" else self._fill_ram_cache
        self._cached, states = fill(count, progress)
        for index, state in enumerate(states):
            self._report_state(index, FileState(state))

    def _fill_ram_cache(self, count: int, progress: bool) -> tuple[np.ndarray, np.ndarray]:
        """The first `count` canvases and the states of their files."""
        canvases = np.empty((count, *self.input_size, 3), np.uint8)
        states = np.empty(count, np.uint8)
        for index, (canvas, state) in enumerate(self._decode_first(count, progress)):
            canvases[index] = canvas
            states[index] = state
        return canvases, states

    def _fill_disk_cache(self, count: int, progress: bool) -> tuple[np.ndarray | None, np.ndarray]:
        """As `_fill_ram_cache`, but mapped from a file; no canvases if it cannot be written."""
        key = disk_cache.cache_key(self.samples[:count], self.input_size)
        path = self.cache_dir / f"{key}.bin"
        if not disk_cache.is_complete(path, count, self.input_size):
            try:
                disk_cache.write(path, self._decode_first(count, progress))
            except WriteError as error:
                self.notices.append(f"data.cache=disk: {error}; images are decoded every time")
                return None, np.zeros(0, np.uint8)
        return disk_cache.open_shared(path, count, self.input_size)

    def _decode_first(self, count: int, progress: bool) -> Iterator[tuple[np.ndarray, FileState]]:
        """Decode the first `count` images in threads, a few ahead, and yield them in order."""
        bar = progress_bar(desc="decoding images", total=count, show=progress)
        with bar, ThreadPoolExecutor(max(self.workers, 2)) as pool:
            for start in range(0, count, DECODE_AHEAD):
                chunk = range(start, min(start + DECODE_AHEAD, count))
                for canvas, state in pool.map(self._decode, chunk):
                    bar.update()
                    yield canvas, state

    def _decode_some(self, indices: list[int]) -> list[tuple[np.ndarray, FileState]]:
        if self.workers < 2 or len(indices) < 2:
            return [self._decode(index) for index in indices]
        with ThreadPoolExecutor(self.workers) as pool:
            return list(pool.map(self._decode, indices))

    def _decode(self, index: int) -> tuple[np.ndarray, FileState]:
        """The canvas of an image, uint8 `(height, width, 3)`, and the state of its file."""
        sample = self.samples[index]
        letterbox = self.letterboxes[index]
        if sample.draw:
            return letterbox.apply(sample.draw()), FileState.WHOLE
        content = wait_out(
            lambda: _read_unchanged(sample),
            self.read_timeout,
            is_outage=lambda error: True,  # it was read before, so it may be readable again
            on_wait=self._announce_wait,
        )
        try:
            image, state = decode_image(content, sample.path)
        except UserError:
            gray = np.full((*self.input_size, 3), PAD_VALUE, np.uint8)
            return gray, FileState.UNDECODABLE
        return letterbox.apply(image), state

    def _announce_wait(self, error: ReadError) -> None:
        tqdm.write(f"{error}; waiting up to {self.read_timeout:g} s for it", file=sys.stderr)

    def _report_state(self, index: int, state: FileState) -> None:
        """Count a damaged file once; an undecodable image loses its objects."""
        if state == FileState.WHOLE or index in self._damaged:
            return
        self._damaged.add(index)
        self.report.note(DAMAGE[state], self.samples[index].path)
        if state != FileState.UNDECODABLE:
            return
        for values in (self.boxes, self.labels, self.difficult, self.crowd):
            values[index] = values[index][:0]


def _read_unchanged(sample: Sample) -> bytes:
    """Read an image file, which must have the size that it had when it was checked."""
    content = read_file(sample.path, "cannot read image")
    if sample.file_size and len(content) != sample.file_size:
        raise ReadError(
            f"{sample.path}: {len(content):,} bytes, but {sample.file_size:,} when it was checked"
        )
    return content


def pad_targets(boxes: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Stack the targets of several images.

    Args:
        boxes: per image, `(n, 4)` xyxy.
        labels: per image, `(n,)`.

    Returns:
        boxes float32 `(B, M, 4)`, padded with 0; labels int64 `(B, M)`, padded with -1. M is the
        largest n, at least 1.
    """
    longest = max([1, *map(len, labels)])
    padded_boxes = torch.zeros(len(boxes), longest, 4)
    padded_labels = torch.full((len(boxes), longest), -1, dtype=torch.int64)
    for row, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        padded_boxes[row, : len(box)] = torch.from_numpy(np.asarray(box, np.float32))
        padded_labels[row, : len(label)] = torch.from_numpy(np.asarray(label, np.int64))
    return padded_boxes, padded_labels
