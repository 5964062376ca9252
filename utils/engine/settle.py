"""What `auto` means for a training: batch size and number of epochs, once the data is known."""

import math

import torch

from nets.analysis.saved_memory import saved_bytes
from nets.yolo.yolov4_tiny import build_model
from utils.core import distributed
from utils.core.config import update_config
from utils.core.devices import DTYPES, pick_device, pick_precision
from utils.core.memory import available_memory
from utils.core.schema import Config

STEPS = 2000  # that a training from random weights needs, whatever the size of the dataset
MIN_EPOCHS, MAX_EPOCHS = 30, 300
BATCH_SIZE, SMALL_BATCH_SIZE = 16, 8
SMALL_DATASET = 1000  # images; smaller datasets get smaller batches, and so more steps
MEMORY_SHARE = 0.5  # of what is available; gradients and scratch space take the rest


def settle(config: Config, images: int) -> Config:
    """Replace `train.batch_size: auto` and `train.epochs: auto` by numbers.

    Args:
        config: the experiment.
        images: number of training images.
    """
    changes: dict[str, int] = {}
    if config.train.batch_size == "auto":
        size = SMALL_BATCH_SIZE if images < SMALL_DATASET else BATCH_SIZE
        parts = _parts_that_fit(config, size)
        changes["train.batch_size"] = size // parts
        if parts > 1:
            changes["train.accumulate"] = config.train.accumulate * parts
    config = update_config(config, changes)
    if config.train.epochs == "auto":
        steps = max(1, images // config.train.images_per_step)
        epochs = min(max(math.ceil(STEPS / steps), MIN_EPOCHS), MAX_EPOCHS)
        changes["train.epochs"] = epochs
    return update_config(config, changes)


def _parts_that_fit(config: Config, batch_size: int) -> int:
    """The number of parts, a power of two, to train a batch in; 1 if memory is unknown."""
    device = pick_device(config.device)
    available = available_memory(device)
    if available is None:
        return 1
    largest = batch_size // distributed.world_size()
    largest_area = (1 + config.train.multi_scale) ** 2  # relative to `input_size`
    needed = (
        largest * largest_area * bytes_per_image(config, pick_precision(config.precision, device))
    )
    parts = 1
    while needed / parts > MEMORY_SHARE * available and parts < largest:
        parts *= 2
    return parts


def bytes_per_image(config: Config, precision: str) -> int:
    """Memory of one more image in a batch: what the forward pass keeps for the backward pass.

    Computed without memory, on PyTorch's meta device.
    """
    dtype = DTYPES.get(precision, torch.float32)
    with torch.device("meta"):
        network = build_model(config, num_classes=1).train().to(dtype)
    few, more = (
        torch.empty(count, 3, *config.input_size, device="meta", dtype=dtype) for count in (2, 3)
    )
    image = more.nbytes - few.nbytes
    return saved_bytes(network, more) - saved_bytes(network, few) + image
