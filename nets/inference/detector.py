"""Images in, typed detections out: the one path from pixels to boxes that evaluation and prediction share."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import overload

import numpy as np
import torch
from torch import Tensor

from nets.inference.backends import Backend, Source, choose_device, choose_precision, make_backend
from nets.inference.detections import Detections
from nets.ops.nms import Found, select
from nets.yolo.yolov4_tiny import YOLOv4Tiny
from utils.core.errors import UserError
from utils.core.images import Letterbox, read_image
from utils.core.schema import Config, EvalConfig, PredictConfig

Picture = str | Path | np.ndarray | Tensor


class Detector:
    """A network with all that is needed to use it.

    Args:
        network: on any device; it is moved to `config.device` and put in evaluation mode. On the meta device (a
            structure without values) where `onnx` is given.
        config: `input_size`, `device`, `precision`, `backend` and `predict` are read.
        names: the class list.
        backend: what computes, one of `nets.inference.backends.BACKENDS` or "auto"; none: `config.backend`.
        onnx: the ONNX file to run. weights: the file that the network's values came from.

    Attributes:
        network, config, names, input_size (height, width), device, precision; source: what the backend is made from.

    Raises:
        UserError: the backend's package is missing, or it does not compute on the device or in the precision.
    """

    def __init__(
        self,
        network: YOLOv4Tiny,
        config: Config,
        names: Sequence[str],
        backend: str | None = None,
        onnx: Path | None = None,
        weights: Path | None = None,
    ) -> None:
        self.config = config
        self.names = tuple(names)
        self.input_size = config.input_size
        self.backend_name = backend or config.backend
        self.device = choose_device(self.backend_name, config.device)
        self.precision = choose_precision(self.backend_name, config.precision, self.device)
        if onnx is None:
            network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = network.eval()
        self.source = Source(network, config, self.names, onnx, weights)

    @cached_property
    def backend(self) -> Backend:
        """Takes uint8 `(B, H, W, 3)`, returns boxes and scores. Made at first use, of the weights as they are then."""
        return make_backend(self.backend_name, self.source)

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a str is also a sequence of str
        self, images: Picture, limits: EvalConfig | PredictConfig | None = None
    ) -> Detections: ...

    @overload
    def __call__(
        self, images: Sequence[Picture], limits: EvalConfig | PredictConfig | None = None
    ) -> list[Detections]: ...

    def __call__(
        self, images: Picture | Sequence[Picture], limits: EvalConfig | PredictConfig | None = None
    ) -> Detections | list[Detections]:
        """Detect objects.

        Args:
            images: an image or a list of images: a path, an RGB uint8 array `(h, w, 3)`, or a tensor `(3, h, w)`,
                uint8 0..255 or float 0..1. Any size: images are letterboxed.
            limits: score, NMS and count limits; none: `config.predict`.

        Returns:
            `Detections` for one image, a list for a list.
        """
        single = isinstance(images, (str, Path, np.ndarray, Tensor))
        pictures: list[Picture] = [images] if single else list(images)  # type: ignore[list-item, arg-type]
        arrays = [_to_array(picture) for picture in pictures]
        titles = [
            str(picture) if isinstance(picture, (str, Path)) else None for picture in pictures
        ]
        boxings = [Letterbox((array.shape[0], array.shape[1]), self.input_size) for array in arrays]
        canvases = [boxing.apply(array) for boxing, array in zip(boxings, arrays, strict=True)]
        if not canvases:
            return []
        batch = canvases[0][None] if len(canvases) == 1 else np.stack(canvases)
        found = self.detect(torch.from_numpy(batch), boxings, limits, titles)
        return found[0] if single else found

    @torch.inference_mode()
    def detect(
        self,
        canvases: Tensor,
        letterboxes: Sequence[Letterbox],
        limits: EvalConfig | PredictConfig | None = None,
        titles: Sequence[str | None] | None = None,
    ) -> list[Detections]:
        """Detect on letterboxed images: uint8 `(B, h, w, 3)` of size `input_size`, and how each was letterboxed."""
        limits = limits or self.config.predict
        boxes, scores = self.backend(canvases)
        found = select(
            boxes, scores, limits.score, limits.nms_iou, limits.max_detections, limits.vote_iou
        )
        titles = titles or [None] * len(letterboxes)
        return [
            self._result(*one, boxing, title)
            for one, boxing, title in zip(_fetch(found), letterboxes, titles, strict=True)
        ]

    def _result(
        self, boxes: Tensor, scores: Tensor, labels: Tensor, boxing: Letterbox, title: str | None
    ) -> Detections:
        height, width = boxing.source
        corners = boxing.boxes_to_original(boxes.numpy())
        there = (corners[:, 2:] > corners[:, :2]).all(
            1
        )  # what lies wholly in the padding is no detection
        return Detections(
            boxes=corners[there],
            scores=scores.numpy()[there],
            labels=labels.numpy()[there],
            names=self.names,
            width=width,
            height=height,
            image=title,
        )


def _fetch(found: list[Found]) -> list[Found]:
    """Into main memory; of a GPU, in three copies for all pictures."""
    if not found or found[0][0].device.type == "cpu":
        return found
    counts = [len(labels) for _, _, labels in found]
    boxes, scores, labels = (
        torch.cat(column).cpu().split(counts) for column in zip(*found, strict=True)
    )
    return list(zip(boxes, scores, labels, strict=True))


def _to_array(picture: Picture) -> np.ndarray:
    if isinstance(picture, (str, Path)):
        return read_image(picture)
    if isinstance(picture, Tensor):
        if picture.ndim != 3 or picture.shape[0] != 3:
            raise UserError(f"expected a tensor (3, height, width), got {tuple(picture.shape)}")
        scaled = (picture * 255).round().clamp(0, 255) if picture.is_floating_point() else picture
        return scaled.permute(1, 2, 0).to("cpu", torch.uint8).numpy()
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise UserError(
            f"expected an RGB uint8 array (height, width, 3), got {picture.dtype} {picture.shape}"
        )
    return picture
