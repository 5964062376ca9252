"""The tensors of bubbliiiing/yolov4-tiny-pytorch's weights: names, shapes, random values."""

import torch
from torch import Tensor

# bubbliiiing/yolov4-tiny-pytorch's convolutions: name, input channels, output channels, kernel
BACKBONE = [
    ("conv1", 3, 32, 3),
    ("conv2", 32, 64, 3),
    *[
        layer
        for stage, width in ((1, 64), (2, 128), (3, 256))
        for layer in (
            (f"resblock_body{stage}.conv1", width, width, 3),
            (f"resblock_body{stage}.conv2", width // 2, width // 2, 3),
            (f"resblock_body{stage}.conv3", width // 2, width // 2, 3),
            (f"resblock_body{stage}.conv4", width, width, 1),
        )
    ],
    ("conv3", 512, 512, 3),
]
NECK_AND_HEADS = [
    ("conv_for_P5", 512, 256, 1),
    ("upsample.upsample.0", 256, 128, 1),
    ("yolo_headP5.0", 256, 512, 3),
    ("yolo_headP4.0", 384, 256, 3),
]
PHI = ["none", "se", "cbam", "eca", "ca"]
SITES = ("feat1", "feat2", "upsample")  # where the reference implementation puts its blocks


def block_shapes(phi: str, c: int) -> dict[str, tuple[int, ...]]:
    return {
        "none": {},
        "se": {"fc.0.weight": (c // 16, c), "fc.2.weight": (c, c // 16)},
        "cbam": {
            "channelattention.fc1.weight": (c // 8, c, 1, 1),
            "channelattention.fc2.weight": (c, c // 8, 1, 1),
            "spatialattention.conv1.weight": (1, 2, 7, 7),
        },
        "eca": {"conv.weight": (1, 1, 5)},
        "ca": {
            "conv_1x1.weight": (c // 16, c, 1, 1),
            "F_h.weight": (c, c // 16, 1, 1),
            "F_w.weight": (c, c // 16, 1, 1),
            **{
                f"bn.{key}": (c // 16,) for key in ("weight", "bias", "running_mean", "running_var")
            },
            "bn.num_batches_tracked": (),
        },
    }[phi]


def conv_shapes(
    layers: list[tuple[str, int, int, int]], prefix: str = ""
) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, inputs, outputs, kernel in layers:
        shapes[f"{prefix}{name}.conv.weight"] = (outputs, inputs, kernel, kernel)
        shapes |= {
            f"{prefix}{name}.bn.{key}": (outputs,)
            for key in ("weight", "bias", "running_mean", "running_var")
        }
        shapes[f"{prefix}{name}.bn.num_batches_tracked"] = ()
    return shapes


def reference_shapes(phi: str, classes: int) -> dict[str, tuple[int, ...]]:
    outputs = 3 * (5 + classes)
    shapes = conv_shapes(BACKBONE, "backbone.") | conv_shapes(NECK_AND_HEADS)
    shapes |= {"yolo_headP5.1.weight": (outputs, 512, 1, 1), "yolo_headP5.1.bias": (outputs,)}
    shapes |= {"yolo_headP4.1.weight": (outputs, 256, 1, 1), "yolo_headP4.1.bias": (outputs,)}
    for site, channels in (("feat1", 256), ("feat2", 512), ("upsample", 128)):
        shapes |= {
            f"{site}_att.{name}": shape for name, shape in block_shapes(phi, channels).items()
        }
    return shapes


def fill(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return {
        name: torch.tensor(3) if name.endswith("num_batches_tracked") else torch.rand(shape)
        for name, shape in shapes.items()
    }
