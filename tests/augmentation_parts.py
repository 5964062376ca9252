"""What tests of the augmentation share."""

import torch
from torch import Tensor

# No distortion at all
NOTHING = {
    "mosaic": 0.0, "mixup": 0.0, "fliplr": 0.0, "flipud": 0.0, "scale": (1.0, 1.0),
    "translate": 0.0, "degrees": 0.0, "shear": 0.0, "hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0,
}  # fmt: skip


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def singles(count: int) -> Tensor:
    return torch.cat([torch.arange(count)[:, None], torch.full((count, 3), -1)], 1)
