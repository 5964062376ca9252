"""The detections of one image."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.core.errors import UserError, nearest, require_package

if TYPE_CHECKING:
    import supervision


@dataclass(frozen=True, eq=False)  # arrays have no single answer to ==
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
        ids: int64 `(n,)`, the same number for the same object in all frames of a video; -1: not
            followed (yet). None: without tracking.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    width: int
    height: int
    image: str | None = None
    ids: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score: float) -> "Detections":
        """Return the detections that score at least `score`, 0..1."""
        return self.select(self.scores >= score)

    def only(self, names: str | Iterable[str]) -> "Detections":
        """Return the detections of some classes, or of one.

        Raises:
            UserError: a name is not one of the model's classes.
        """
        return self.select(np.isin(self.labels, class_labels(names, self.names)))

    def select(self, index: np.ndarray) -> "Detections":
        """Return the detections that a mask, bool `(n,)`, or indices, int `(m,)`, choose."""
        return replace(
            self,
            boxes=self.boxes[index],
            scores=self.scores[index],
            labels=self.labels[index],
            ids=None if self.ids is None else self.ids[index],
        )

    def per_class(self) -> Counter[str]:
        """Return the number of detections of each class, by name."""
        return Counter(self.names[int(label)] for label in self.labels)

    def to_json(self) -> dict[str, Any]:
        """Return the image's entry in `predict.py --json`.

        Returns:
            `{"image", "width", "height", "detections": [{"box", "score", "class", "name"}, ...]}`;
            boxes are xyxy in pixels of the original image. With tracking, each detection has "id",
            null if the object is not followed (yet).
        """
        detections: list[dict[str, Any]] = [
            {
                "box": [round(float(value), 2) for value in box],
                "score": round(float(score), 4),
                "class": int(label),
                "name": self.names[int(label)],
            }
            for box, score, label in zip(self.boxes, self.scores, self.labels, strict=True)
        ]
        if self.ids is not None:
            for entry, number in zip(detections, self.ids, strict=True):
                entry["id"] = int(number) if number >= 0 else None
        return {
            "image": self.image,
            "width": self.width,
            "height": self.height,
            "detections": detections,
        }

    def to_coco(self, image_id: Any, category_ids: Sequence[int] | None = None) -> list[dict]:
        """Return the image's entries in COCO's results format.

        Args:
            image_id: the image's id in the ground truth.
            category_ids: the category id of each class; None: its index + 1.

        Returns:
            `[{"image_id", "category_id", "bbox": [x, y, width, height], "score"}, ...]`, not
            rounded; boxes in pixels of the original image.
        """
        ids = range(1, len(self.names) + 1) if category_ids is None else category_ids
        return [
            {
                "image_id": image_id,
                "category_id": ids[label],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": score,
            }
            for (x1, y1, x2, y2), score, label in zip(
                self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True
            )
        ]

    def to_supervision(self) -> "supervision.Detections":
        """Return `supervision.Detections`, with the names of the classes in `data["class_name"]`.

        Raises:
            UserError: supervision is not installed.
        """
        sv = require_package("supervision", "Detections.to_supervision()")
        return sv.Detections(
            xyxy=self.boxes,
            confidence=self.scores,
            class_id=self.labels,
            tracker_id=self.ids,
            data={"class_name": np.array([self.names[label] for label in self.labels], str)},
        )

    def plot(self, image: np.ndarray | None = None) -> np.ndarray:
        """Draw the boxes with "name 0.87" labels, the best detection on top.

        Args:
            image: RGB uint8 `(h, w, 3)`, not modified; None: read the file `self.image`.

        Returns:
            A new image, RGB uint8 `(h, w, 3)`.

        Raises:
            UserError: there is no file, or it cannot be read.
        """
        # imported here: they load PyTorch, which these detections do not need
        from nets.inference.drawing import draw_detections
        from utils.core.images import read_image

        if image is None and self.image is None:
            raise UserError("Detections.plot(): these detections name no file: give the image")
        return draw_detections(read_image(str(self.image)) if image is None else image, self)


def class_labels(
    names: str | Iterable[str], known: Sequence[str], option: str = "classes"
) -> list[int]:
    """Return the index of each name in the model's classes.

    Args:
        names: names of classes, or one.
        known: the model's classes.
        option: what the names come from, for the error message.

    Raises:
        UserError: a name is not one of the model's classes.
    """
    indices = {name: index for index, name in enumerate(known)}
    labels = []
    for name in [names] if isinstance(names, str) else names:
        if name not in indices:
            raise UserError(f"{option} {name}: not in the class list{nearest(name, known)}")
        labels.append(indices[name])
    return labels
