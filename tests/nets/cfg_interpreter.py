"""Darknet's `.cfg`, interpreted layer by layer: an independent description of the network."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

ACTIVATIONS = {
    "leaky": lambda x: torch.where(x > 0, x, 0.1 * x),
    "logistic": torch.sigmoid,
    "linear": lambda x: x,
}

CfgSections = list[tuple[str, dict[str, str]]]


def read_cfg_sections(path: Path) -> CfgSections:
    """Kind and options of each section."""
    sections: CfgSections = []
    for line in path.read_text().splitlines():
        text = line.split("#")[0].strip()
        if text.startswith("["):
            sections.append((text.strip("[]"), {}))
        elif text:
            key, value = text.split("=", 1)
            sections[-1][1][key.strip()] = value.strip().replace(" ", "")
    return sections


class Interpreter:
    """Runs a cfg on a Darknet file's values."""

    def __init__(self, sections: CfgSections, values: np.ndarray) -> None:
        self.sections = sections
        self.values = torch.from_numpy(values.copy())
        self.used = 0

    def take(self, *shape: int) -> Tensor:
        """The next values of the file."""
        start = self.used
        self.used += int(np.prod(shape))
        return self.values[start : self.used].view(shape)

    def convolutional(self, x: Tensor, option: dict[str, str]) -> Tensor:
        filters, size, stride = (int(option[key]) for key in ("filters", "size", "stride"))
        padding = size // 2 if int(option["pad"]) else 0
        if "batch_normalize" not in option:
            bias = self.take(filters)
            kernels = self.take(filters, x.shape[1], size, size)
            x = F.conv2d(x, kernels, bias, stride, padding)
        else:
            beta, gamma, mean, variance = (self.take(filters)[:, None, None] for _ in range(4))
            kernels = self.take(filters, x.shape[1], size, size)
            x = F.conv2d(x, kernels, None, stride, padding)
            x = (x - mean) / torch.sqrt(variance + 1e-6) * gamma + beta
        return ACTIVATIONS[option["activation"]](x)

    def run(self, x: Tensor) -> list[Tensor]:
        """The maps that enter the `[yolo]` layers."""
        outputs: list[Tensor] = []
        heads = []
        for kind, option in self.sections[1:]:
            if kind == "convolutional":
                x = self.convolutional(x, option)
            elif kind == "route":
                layers = [int(layer) for layer in option["layers"].split(",")]
                x = torch.cat([outputs[layer] for layer in layers], 1)
                x = x.chunk(int(option.get("groups", 1)), 1)[int(option.get("group_id", 0))]
            elif kind == "maxpool":
                x = F.max_pool2d(x, int(option["size"]), int(option["stride"]))
            elif kind == "upsample":
                x = F.interpolate(x, scale_factor=int(option["stride"]), mode="nearest")
            elif kind == "yolo":
                heads.append(x)
            outputs.append(x)
        return heads
