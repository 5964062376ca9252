"""Detection in overlapping tiles, for objects that are too small in the whole image."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torchvision.ops import batched_nms

from nets.inference.detections import Detections
from utils.core.errors import UserError, require_package

OVERLAP = 0.2
MIN_SIZE, MAX_SIZE, MAX_OVERLAP = 32, 16_384, 0.9


@dataclass(frozen=True)
class Tiling:
    """How an image is divided.

    Attributes:
        size: side of a tile, pixels.
        overlap: share of its side that a tile has in common with the next one, 0 to 0.9.
    """

    size: int
    overlap: float = OVERLAP

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UserError: one is out of range, or supervision is not installed.
        """
        if not MIN_SIZE <= self.size <= MAX_SIZE:
            raise UserError(f"--tile: expected {MIN_SIZE} to {MAX_SIZE:,} pixels, got {self.size}")
        if not 0 <= self.overlap <= MAX_OVERLAP:
            raise UserError(f"--overlap: expected 0 to {MAX_OVERLAP}, got {self.overlap}")
        require_package("supervision", "--tile")

    def divides(self, size: tuple[int, int]) -> bool:
        """Whether an image of this (height, width) is larger than a tile."""
        return max(size) > self.size

    def detect(
        self,
        image: np.ndarray,
        detect: Callable[[np.ndarray], Detections],
        nms_iou: float,
        max_detections: int,
    ) -> Detections:
        """Detect in each tile, and join what several tiles show by NMS within each class.

        Args:
            image: RGB uint8 `(h, w, 3)`.
            detect: detects in one tile.
            nms_iou: IoU threshold of that NMS, 0..1.
            max_detections: maximum number of joined detections.
        """
        sv = require_package("supervision", "--tile")
        overlap = int(self.size * self.overlap)
        tiles: list[Detections] = []

        def detect_tile(tile: np.ndarray) -> object:
            tiles.append(detect(tile))
            return tiles[-1].to_supervision()

        slicer = sv.InferenceSlicer(
            detect_tile,
            slice_wh=(self.size, self.size),
            overlap_wh=(overlap, overlap),
            overlap_filter=sv.OverlapFilter.NONE,  # its NMS keeps the IoU of all pairs in memory
        )
        joined = slicer(image)
        columns = (joined.xyxy.astype(np.float32), joined.confidence, joined.class_id)
        boxes, scores, labels = (torch.from_numpy(column) for column in columns)
        best = batched_nms(boxes, scores, labels, nms_iou)[:max_detections].numpy()
        return replace(
            tiles[0],
            boxes=joined.xyxy[best].astype(np.float32),
            scores=joined.confidence[best].astype(np.float32),
            labels=joined.class_id[best].astype(np.int64),
            height=image.shape[0],
            width=image.shape[1],
        )


def make_tiling(tile: int | None, overlap: float | None) -> Tiling | None:
    """The tiling of the options `--tile` and `--overlap`; None without `--tile`.

    Raises:
        UserError: a value is out of range, or there is only an overlap.
    """
    if tile is not None:
        return Tiling(tile, OVERLAP if overlap is None else overlap)
    if overlap is not None:
        raise UserError("--overlap: only with --tile")
    return None
