"""The baseline: the same network in fp32, eager, contiguous NCHW, with nothing fused or cached.

It runs in a separate process with PyTorch's defaults for all per-process settings.
"""

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nets.loading import load_model
from nets.losses.yolo_loss import YoloLoss
from nets.yolo.yolov4_tiny import YOLOv4Tiny
from utils.core.timing import Clock, block_timed, timed


def baseline_network(network: YOLOv4Tiny) -> YOLOv4Tiny:
    """A copy in float32 and contiguous memory."""
    return copy.deepcopy(network).float().to(memory_format=torch.contiguous_format)


def baseline_detect(network: YOLOv4Tiny, canvases: Tensor) -> tuple[Tensor, Tensor]:
    """Uint8 canvases `(B, H, W, 3)` -> boxes `(B, N, 4)` and scores `(B, N, C)`, in main memory."""
    device = next(network.parameters()).device
    with torch.no_grad():
        images = (canvases.to(device).permute(0, 3, 1, 2).float() / 255).contiguous()
        boxes, scores = network.coder(network(images))
    return boxes.cpu(), scores.cpu()


def baseline_step(
    network: YOLOv4Tiny,
    criterion: YoloLoss,
    optimizer: torch.optim.Optimizer,
    batch: Sequence[Tensor],
) -> None:
    """One training step on a batch of images, boxes and labels."""
    images, boxes, labels = batch
    optimizer.zero_grad()
    loss = criterion(network(images), boxes, labels)["loss"]
    loss.backward()
    optimizer.step()


def make_clocks(
    weights: Path, canvas: np.ndarray, block: float, batch: Sequence[np.ndarray] | None = None
) -> dict[str, Clock]:
    """Return the clocks `detect`, for one image, and with a batch `step`, for a training step.

    Args:
        weights: a checkpoint.
        canvas: uint8 `(1, H, W, 3)`.
        block: milliseconds over which detection is timed.
        batch: images, boxes and labels.
    """
    detector = load_model(weights, backend="torch", precision="fp32")
    device = detector.device
    evaluated = baseline_network(detector.network)
    canvases = torch.from_numpy(canvas)
    clocks = {"detect": block_timed(lambda: baseline_detect(evaluated, canvases), block, device)}
    if batch is not None:
        trained = baseline_network(detector.network).train()
        criterion = YoloLoss(trained.coder, detector.config.loss)
        optimizer = torch.optim.SGD(trained.parameters(), lr=1e-3, momentum=0.9)
        tensors = [torch.from_numpy(array).to(device).contiguous() for array in batch]
        clocks["step"] = timed(
            lambda: baseline_step(trained, criterion, optimizer, tensors), device=device
        )
    return clocks
