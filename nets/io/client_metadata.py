"""What other programs need to know to run an exported network as `Detector` does.

It is written into exported files. `docs/onnx.md` states the same for people.
"""

import json
from collections.abc import Sequence
from typing import Any

from nets.ops.nms import VOTERS
from nets.yolo.box_coder import STRIDES
from utils.core.images import PAD_VALUE
from utils.core.schema import Config


def client_metadata(config: Config, names: Sequence[str], has_nms: bool = False) -> dict[str, str]:
    """Return the metadata of an exported file by key.

    Args:
        config: of the network; the numbers of `config.predict` are those of the client.
        names: the class names.
        has_nms: whether the file ends with NMS, which leaves only the way back to the image.

    Returns:
        `names`, `preprocessing` and `postprocessing` as JSON; `imgsz` ([height, width] in pixels,
        JSON), `stride` and `task` under the names that Ultralytics' tools look for.
    """
    values: dict[str, Any] = {
        "names": list(names),
        "imgsz": list(config.input_size),
        "stride": max(STRIDES),
        "preprocessing": _preprocessing(),
        "postprocessing": _postprocessing(config, has_nms),
    }
    texts = {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()}
    return {"task": "detect", **texts}


def _preprocessing() -> dict[str, Any]:
    return {
        "color": "RGB",
        "layout": "NCHW",
        "divide_by": 255,
        "resize": "scale = min(H / h, W / w), new side = max(1, round half to even(side * scale))",
        "interpolation": "bilinear, pixel centers at 0.5; with antialiasing (triangle filter) if "
        "a new side is at most half of the old one",
        "pad_value": PAD_VALUE,
        "pad_left": "(W - new w) // 2",
        "pad_top": "(H - new h) // 2",
    }


def _postprocessing(config: Config, has_nms: bool) -> dict[str, Any]:
    limits = config.predict
    return {
        "score": limits.score,
        "nms_iou": limits.nms_iou,
        "max_detections": limits.max_detections,
        **(_built_in() if has_nms else _left_to_the_caller(limits.vote_iou)),
        "to_image": "x = (x - pad_left) * w / new w, y = (y - pad_top) * h / new h, clipped to the "
        "image; boxes without area are dropped",
    }


def _built_in() -> dict[str, Any]:
    return {
        "vote_iou": 1,
        "nms": "done by the network: each row of detections is x1, y1, x2, y2, score, class; rows "
        "that score 0 are empty",
    }


def _left_to_the_caller(vote_iou: float) -> dict[str, Any]:
    return {
        "vote_iou": vote_iou,
        "voters": VOTERS,
        "candidates": "each box with each class that scores above score",
        "nms": "greedy within each class, best score first, drops IoU above nms_iou; then the best "
        "max_detections of all classes",
        "box_voting": "if vote_iou < 1: mean, weighted by score * IoU^2, of the boxes of the same "
        "class with IoU above vote_iou, of the best voters candidates",
    }
