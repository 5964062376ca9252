"""A network without training that detects a lot, drawn images of all kinds, and what
`predict.py` detects in them.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import nn

from nets.io import checkpoints
from nets.yolo.yolov4_tiny import YOLOv4Tiny, build_model
from utils.core.config import make_config
from utils.core.schema import Config
from utils.data.readers.shapes import draw_image
from utils.engine.prediction import PredictOptions, predict

CONFIG = {
    "phi": "se",
    "input_size": [64, 96],
    "device": "cpu",
    "precision": "fp32",
    "predict": {"score": 0.75},
}
NAMES = ["cat", "Hündin", 'a "long" name']
SCORE = 0.5
HEAD_GAIN = 10  # spreads the scores of a network without training over 0..1
# (height, width): larger than the input, twice as large and more, smaller, unusual
SIZES = {"wide": (90, 140), "large": (200, 350), "small": (40, 29), "strip": (300, 12)}
ROTATED = 6  # EXIF: to be turned by 90 degrees


@dataclass(frozen=True)
class Reference:
    """What clients are measured against.

    Attributes:
        weights: of the network.
        images: the images.
        detections: those of `predict.py`, for each image.
    """

    weights: Path
    images: list[Path]
    detections: list[list[dict[str, Any]]]


def draw_images(folder: Path) -> list[Path]:
    folder.mkdir()
    for index, (name, size) in enumerate(SIZES.items()):
        Image.fromarray(draw_image(0, "val", index, *size)).save(folder / f"{name}.png")
    scene = draw_image(0, "val", 9, 100, 150)
    cv2.imwrite(str(folder / "gray.png"), scene.mean(2).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = ROTATED
    Image.fromarray(scene).save(folder / "rotated.jpg", exif=exif, quality=95)
    Image.fromarray(scene[50:51]).save(folder / "line.png")
    return sorted(folder.iterdir())


@torch.no_grad()
def make_network(config: Config) -> YOLOv4Tiny:
    """A random network whose batch norms fit drawn images."""
    torch.manual_seed(0)
    network = build_model(config, len(NAMES))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean of all batches, here one
    images = [draw_image(0, "train", index, *config.input_size) for index in range(8)]
    network.train()(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255)
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            module.weight *= HEAD_GAIN
    return network.eval()


def make_reference(folder: Path) -> Reference:
    """Write the network and the images to a folder, and detect."""
    config = make_config(CONFIG)
    weights = folder / "best.pt"
    checkpoints.save(weights, checkpoints.describe(make_network(config), config, NAMES))
    images = draw_images(folder / "images")
    predict(
        PredictOptions(
            weights=str(weights),
            source=[str(image) for image in images],
            score=SCORE,
            json=str(folder / "detections.json"),
            out=str(folder / "out"),
        )
    )
    entries = json.loads((folder / "detections.json").read_text())
    return Reference(weights, images, [entry["detections"] for entry in entries])
