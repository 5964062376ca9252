"""Darknet's cfg, interpreted on its own: an independent description of the network."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def read_cfg(path: Path) -> list[tuple[str, dict[str, str]]]:
    sections: list[tuple[str, dict[str, str]]] = []
    for line in path.read_text().splitlines():
        text = line.split("#")[0].strip()
        if text.startswith("["):
            sections.append((text.strip("[]"), {}))
        elif text:
            key, value = text.split("=", 1)
            sections[-1][1][key.strip()] = value.strip()
    return sections


ACTIVATIONS = {
    "leaky": lambda x: torch.where(x > 0, x, 0.1 * x),
    "logistic": torch.sigmoid,
    "linear": lambda x: x,
}


class Interpreter:
    """Runs a cfg on a Darknet file's values; `heads` are the maps that enter the `[yolo]` layers."""

    def __init__(self, sections: list[tuple[str, dict[str, str]]], values: np.ndarray) -> None:
        self.sections, self.values, self.used = sections, torch.from_numpy(values.copy()), 0

    def take(self, *shape: int) -> Tensor:
        count = int(np.prod(shape))
        self.used += count
        return self.values[self.used - count : self.used].view(shape)

    def convolutional(self, x: Tensor, option: dict[str, str]) -> Tensor:
        filters, size = int(option["filters"]), int(option["size"])
        padding = size // 2 if int(option["pad"]) else 0
        if "batch_normalize" not in option:
            bias = self.take(filters)
            x = F.conv2d(
                x, self.take(filters, x.shape[1], size, size), bias, int(option["stride"]), padding
            )
        else:
            beta, gamma, mean, variance = (self.take(filters)[:, None, None] for _ in range(4))
            x = F.conv2d(
                x, self.take(filters, x.shape[1], size, size), None, int(option["stride"]), padding
            )
            x = (x - mean) / torch.sqrt(variance + 1e-5) * gamma + beta
        return ACTIVATIONS[option["activation"]](x)

    def run(self, x: Tensor) -> list[Tensor]:
        outputs: list[Tensor] = []
        heads = []
        for kind, option in self.sections[1:]:
            if kind == "convolutional":
                x = self.convolutional(x, option)
            elif kind == "route":
                sources = [int(layer) for layer in option["layers"].split(",")]
                x = torch.cat([outputs[s] for s in sources], 1)
                x = x.chunk(int(option.get("groups", 1)), 1)[int(option.get("group_id", 0))]
            elif kind == "maxpool":
                x = F.max_pool2d(x, int(option["size"]), int(option["stride"]))
            elif kind == "upsample":
                x = x.repeat_interleave(int(option["stride"]), 2).repeat_interleave(
                    int(option["stride"]), 3
                )
            elif kind == "yolo":
                heads.append(x)
            outputs.append(x)
        return heads
