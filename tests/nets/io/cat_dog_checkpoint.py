"""A checkpoint for the classes cat and dog."""

from pathlib import Path
from typing import Any

from nets.io import checkpoints
from nets.yolo.yolov4_tiny import build_model
from utils.core.config import make_config, restore_config

ANCHORS = [(4.0 * i, 5.0 * i) for i in range(1, 7)]  # fitted, not configured


def save_checkpoint(path: Path, config: dict[str, Any] | None = None) -> None:
    """A checkpoint for the classes cat and dog."""
    config = config or make_config({}).model_dump(mode="json")
    network = build_model(restore_config(config, "test"), 2, ANCHORS)
    saved = {"config": config, "names": ["cat", "dog"], "anchors": [list(a) for a in ANCHORS]}
    checkpoints.save(path, {**saved, "model": network.state_dict(), "epoch": 1})
