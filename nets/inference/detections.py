"""The detections of one image."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Detections:
    """Detections of one image, best score first.

    Attributes:
        boxes: float32 `(n, 4)`, xyxy in pixels of the original image, clipped to it.
        scores: float32 `(n,)`, objectness times class probability, 0..1, descending.
        labels: int64 `(n,)`, index into `names`.
        names: the class names of the model.
        width: width of the original (upright) image in pixels.
        height: height of the original (upright) image in pixels.
        image: the image's name or path, if it has one.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    width: int
    height: int
    image: str | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score: float) -> "Detections":
        """Return the detections that score at least `score`, 0..1."""
        keep = self.scores >= score
        return replace(
            self, boxes=self.boxes[keep], scores=self.scores[keep], labels=self.labels[keep]
        )

    def to_json(self) -> dict[str, Any]:
        """Return the image's entry in `predict.py --json`.

        Returns:
            `{"image", "width", "height", "detections": [{"box", "score", "class", "name"}, ...]}`;
            boxes are xyxy in pixels of the original image.
        """
        detections = [
            {
                "box": [round(float(value), 2) for value in box],
                "score": round(float(score), 4),
                "class": int(label),
                "name": self.names[int(label)],
            }
            for box, score, label in zip(self.boxes, self.scores, self.labels, strict=True)
        ]
        return {
            "image": self.image,
            "width": self.width,
            "height": self.height,
            "detections": detections,
        }
