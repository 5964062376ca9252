"""From images to detections: the one path that evaluation and prediction share."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nets.inference.backends import (
    Backend,
    ModelSpec,
    choose_device,
    choose_precision,
    make_backend,
)
from nets.inference.detections import Detections
from nets.inference.tiling import Tiling
from nets.io.exported import ExportedFile
from nets.ops.nms import RawDetections, non_max_suppression
from nets.yolo.yolov4_tiny import YOLOv4Tiny
from utils.core.devices import lay_channels_last
from utils.core.errors import UserError, shorten
from utils.core.images import Letterbox, read_image
from utils.core.schema import Config, EvalConfig, PredictConfig

ImageInput = str | Path | np.ndarray | Tensor | Image.Image
LimitsConfig = EvalConfig | PredictConfig
OVERSHOOT = 0.1  # of a tensor's values over 0..1, as bicubic resizing leaves it; it is cut off


class Detector:
    """A network with everything needed to detect objects in images.

    Args:
        network: on any device; it is moved to `config.device`, made float32 and put in evaluation
            mode. With `exported`, of `checkpoints.build_shapes`.
        config: `input_size`, `device`, `precision`, `backend` and `predict` are read; and for files
            that backends make, `name`, `phi`, `attention` and `model`; they keep all of it.
        names: the class names.
        backend: what runs the network, one of `nets.inference.backends.BACKENDS` or "auto";
            None: `config.backend`.
        exported: the exported file to run.
        weights: the file that the network's values came from.

    Attributes:
        network: the network, in evaluation mode.
        config: its configuration.
        names: the class names.
        input_size: (height, width) in pixels.
        device: where the backend runs; with "auto", where PyTorch would.
        precision: "fp32", "bf16", "fp16" or "int8"; with "auto", what PyTorch would compute in.
            `backend.precision` is what the chosen one computes in.
        model_spec: what the backend is built from.
        tiling: how large images are divided; None: not at all. May be set.

    Raises:
        UserError: there are not as many names as classes, the backend's package is missing, or it
            does not support the device or the precision.
    """

    def __init__(
        self,
        network: YOLOv4Tiny,
        config: Config,
        names: Sequence[str],
        backend: str | None = None,
        exported: ExportedFile | None = None,
        weights: Path | None = None,
    ) -> None:
        self.config = config
        self.names = tuple(names)
        if len(self.names) != network.num_classes:
            raise UserError(
                f"{len(self.names)} class names, but the network has {network.num_classes} classes"
            )
        self.input_size = config.input_size
        self.backend_name = backend or config.backend
        self.device = choose_device(self.backend_name, config.device)
        self.precision = choose_precision(self.backend_name, config.precision, self.device)
        if exported is None:
            network = network.to(self.device, torch.float32)
            lay_channels_last(network)
        self.network = network.eval()
        self.model_spec = ModelSpec(network, config, self.names, exported, weights)
        self.classes = None
        self.tiling: Tiling | None = None

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The classes to detect, by name; None: all. May be set, also to one name."""
        return self._classes

    @classes.setter
    def classes(self, names: str | Iterable[str] | None) -> None:
        names = [names] if isinstance(names, str) else names
        self._classes = None if names is None else tuple(names)

    @cached_property
    def backend(self) -> Backend:
        """The backend, built on first use from the network's weights at that time."""
        return make_backend(self.backend_name, self.model_spec)

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a str is also a sequence of str
        self, images: ImageInput, limits: LimitsConfig | None = None
    ) -> Detections: ...

    @overload
    def __call__(
        self, images: Iterable[ImageInput], limits: LimitsConfig | None = None
    ) -> list[Detections]: ...

    def __call__(
        self, images: ImageInput | Iterable[ImageInput], limits: LimitsConfig | None = None
    ) -> Detections | list[Detections]:
        """Detect objects in images of any size.

        Args:
            images: an image or several, such as a list: a path, an RGB uint8 array `(h, w, 3)`, a
                tensor `(3, h, w)`, uint8 0..255 or float 0..1, or an image of Pillow, as it lies
                in memory.
            limits: score, NMS and count limits; None: `config.predict`.

        Returns:
            `Detections` for one image, a list for several.

        Raises:
            UserError: an image cannot be read, or is none of these.
        """
        if isinstance(images, ImageInput):
            return self._detect_images([images], limits)[0]
        if not isinstance(images, Iterable):
            raise _not_an_image(images)
        return self._detect_images(list(images), limits)

    def _detect_images(
        self, images: Sequence[ImageInput], limits: LimitsConfig | None
    ) -> list[Detections]:
        arrays = [_to_array(image) for image in images]
        in_tiles = [self.tiling is not None and self.tiling.divides(_size(one)) for one in arrays]
        whole = [array for array, divided in zip(arrays, in_tiles, strict=True) if not divided]
        rest = iter(self._detect_whole(whole, limits))
        detections = []
        for image, array, divided in zip(images, arrays, in_tiles, strict=True):
            one = self.detect_tiles(array, limits) if divided else next(rest)
            path = str(image) if isinstance(image, (str, Path)) else None
            detections.append(replace(one, image=path))
        return detections

    def _detect_whole(
        self, images: Sequence[np.ndarray], limits: LimitsConfig | None
    ) -> list[Detections]:
        if not images:
            return []
        letterboxes = [Letterbox(_size(image), self.input_size) for image in images]
        canvases = [box.apply(image) for box, image in zip(letterboxes, images, strict=True)]
        # a single image, the common case, is not copied
        batch = canvases[0][None] if len(canvases) == 1 else np.stack(canvases)
        return self.detect(torch.from_numpy(batch), letterboxes, limits)

    def detect_tiles(self, image: np.ndarray, limits: LimitsConfig | None = None) -> Detections:
        """Detect objects in an image by `self.tiling`, which must be set.

        Args:
            image: RGB uint8 `(h, w, 3)`.
            limits: score, NMS and count limits; None: `config.predict`.
        """
        assert self.tiling is not None
        limits = limits or self.config.predict
        return self.tiling.detect(
            image,
            lambda tile: self._detect_whole([tile], limits)[0],
            limits.nms_iou,
            limits.max_detections,
        )

    @torch.inference_mode()
    def detect(
        self,
        canvases: Tensor,
        letterboxes: Sequence[Letterbox],
        limits: LimitsConfig | None = None,
        image_names: Sequence[str | None] | None = None,
    ) -> list[Detections]:
        """Detect objects in images that are already letterboxed.

        Args:
            canvases: uint8 `(B, H, W, 3)`, RGB, of size `input_size`.
            letterboxes: the letterbox of each of the B images.
            limits: score, NMS and count limits; None: `config.predict`.
            image_names: `Detections.image` for each image; None: no names.

        Returns:
            `Detections` of each image, in pixels of the original images.
        """
        limits = limits or self.config.predict
        boxes, scores = self.backend(canvases)
        if self.model_spec.origin:
            self.model_spec.check_outputs(boxes, scores)
        selected = non_max_suppression(
            boxes, scores, limits.score, limits.nms_iou, limits.max_detections, limits.vote_iou
        )
        image_names = image_names or [None] * len(letterboxes)
        return [
            self._to_detections(*tensors, letterbox, image_name)
            for tensors, letterbox, image_name in zip(
                _to_cpu(selected), letterboxes, image_names, strict=True
            )
        ]

    def _to_detections(
        self,
        boxes: Tensor,
        scores: Tensor,
        labels: Tensor,
        letterbox: Letterbox,
        image_name: str | None,
    ) -> Detections:
        height, width = letterbox.original_size
        corners = letterbox.boxes_to_original(boxes.numpy())
        # a box that lies in the padding has no area left after clipping
        keep = (corners[:, 2:] > corners[:, :2]).all(1)
        detections = Detections(
            boxes=corners[keep],
            scores=scores.numpy()[keep],
            labels=labels.numpy()[keep],
            names=self.names,
            width=width,
            height=height,
            image=image_name,
        )
        return detections if self.classes is None else detections.only(self.classes)


def _size(image: np.ndarray) -> tuple[int, int]:
    height, width = image.shape[:2]
    return height, width


def _to_cpu(selected: list[RawDetections]) -> list[RawDetections]:
    """Move detections to the CPU; from a GPU, with three copies for all images together."""
    if not selected or selected[0][0].device.type == "cpu":
        return selected
    counts = [len(labels) for _, _, labels in selected]
    columns = [torch.cat(column).cpu().split(counts) for column in zip(*selected, strict=True)]
    return [RawDetections(*image) for image in zip(*columns, strict=True)]


def _to_array(image: ImageInput) -> np.ndarray:
    """Return an image as RGB uint8 `(h, w, 3)`."""
    if isinstance(image, (str, Path)):
        return read_image(image)
    if isinstance(image, Tensor):
        return _from_tensor(image)
    if isinstance(image, Image.Image):
        image = np.asarray(image.convert("RGB"))
    if not isinstance(image, np.ndarray):
        raise _not_an_image(image)
    is_rgb = image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8
    if not is_rgb or 0 in image.shape:
        raise UserError(
            f"expected an RGB uint8 array (height, width, 3), got {image.dtype} {image.shape}"
        )
    return image


def _from_tensor(image: Tensor) -> np.ndarray:
    if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
        raise UserError(f"expected a tensor (3, height, width), got {tuple(image.shape)}")
    if image.is_floating_point():
        low, high = (float(value) for value in image.aminmax())
        if not -OVERSHOOT <= low <= high <= 1 + OVERSHOOT:
            raise UserError(f"expected a tensor of floats 0..1, got {low:g} to {high:g}")
        image = (image * 255).round().clamp(0, 255).to(torch.uint8)
    if image.dtype != torch.uint8:
        raise UserError(f"expected a tensor of uint8 0..255 or floats 0..1, got {image.dtype}")
    return image.permute(1, 2, 0).cpu().numpy()


def _not_an_image(value: object) -> UserError:
    return UserError(
        "expected a path, an RGB array, a tensor (3, height, width) or an image of Pillow, "
        f"got {type(value).__name__} {shorten(value, quoted=True)}"
    )
