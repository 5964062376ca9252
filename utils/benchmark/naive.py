"""The yardstick: the same network as one writes it first. Float32, eager, contiguous NCHW, nothing folded or cached.

It runs in a process of its own (`utils.benchmark.remote`), with PyTorch's defaults for all that a process can set.
"""

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from nets.loading import load_model
from nets.losses.yolo_loss import YoloLoss
from nets.yolo.yolov4_tiny import YOLOv4Tiny
from utils.core.schema import Config
from utils.core.timing import Clock, block_timed, timed

LR, MOMENTUM = 1e-3, 0.9


def naive_network(network: YOLOv4Tiny) -> YOLOv4Tiny:
    """A copy in float32 and contiguous memory."""
    return copy.deepcopy(network).float().to(memory_format=torch.contiguous_format)


def naive_detect(network: YOLOv4Tiny, canvases: Tensor) -> tuple[Tensor, Tensor]:
    """Uint8 canvases `(B, H, W, 3)` -> boxes `(B, N, 4)` and scores `(B, N, C)`, in main memory."""
    device = next(network.parameters()).device
    with torch.no_grad():
        images = (canvases.to(device).permute(0, 3, 1, 2).float() / 255).contiguous()
        boxes, scores = network.coder(network(images))
    return boxes.cpu(), scores.cpu()


def naive_step(
    network: YOLOv4Tiny,
    criterion: YoloLoss,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    boxes: Tensor,
    labels: Tensor,
) -> Tensor:
    """One training step on a ready batch; returns the loss."""
    optimizer.zero_grad()
    loss = criterion(network(images), boxes, labels)["loss"]
    loss.backward()
    optimizer.step()
    return loss.detach()


def make_clocks(
    weights: Path, batch: Path | None, canvases: Path, block: float
) -> Mapping[str, Clock]:
    """`step`, of a training step on `batch`, if that is given, and `detect`, of a picture.

    Args:
        weights: a checkpoint of this project. batch: a file with `images`, `boxes` and `labels`. canvases: one with
            uint8 `(1, H, W, 3)`. block: milliseconds that a block of detections takes at least.
    """
    detector = load_model(weights, backend="torch", precision="fp32")
    device = detector.device
    clocks: dict[str, Clock] = {}
    if batch is not None:
        clocks["step"] = _step_clock(
            naive_network(detector.network).train(), detector.config, batch, device
        )
    network, picture = (
        naive_network(detector.network).eval(),
        torch.load(canvases, weights_only=True),
    )

    def detect() -> tuple[Tensor, Tensor]:
        return naive_detect(network, picture)

    clocks["detect"] = block_timed(detect, block, device)
    return clocks


def _step_clock(network: YOLOv4Tiny, config: Config, batch: Path, device: torch.device) -> Clock:
    given = torch.load(batch, weights_only=True)
    images, boxes, labels = (given[key].to(device) for key in ("images", "boxes", "labels"))
    images = images.contiguous()
    criterion = YoloLoss(network.coder, config.loss)
    optimizer = torch.optim.SGD(network.parameters(), LR, MOMENTUM)
    return timed(
        lambda: naive_step(network, criterion, optimizer, images, boxes, labels), device=device
    )
