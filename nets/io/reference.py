"""Weights of bubbliiiing/yolov4-tiny-pytorch: tensor names and conventions."""

import re
from collections.abc import Iterable

from nets.yolo.box_coder import DARKNET
from utils.core.schema import ModelConfig

# Patterns in the reference's names -> our names, applied in order
RENAMES = (
    (r"^module\.", ""),  # of nn.DataParallel
    (r"^(conv[123]|resblock_body\d)\.", r"backbone.\1."),  # the backbone alone
    (r"^backbone\.conv1\.", "backbone.stem1."),
    (r"^backbone\.conv2\.", "backbone.stem2."),
    (r"^backbone\.conv3\.", "backbone.last."),
    (r"^backbone\.resblock_body(\d)\.", r"backbone.csp\1."),
    (r"^conv_for_P5\.", "neck.lateral."),
    (r"^upsample\.upsample\.0\.", "neck.reduce."),
    (r"^yolo_headP5\.0\.", "head32."),
    (r"^yolo_headP5\.1\.", "predict32."),
    (r"^yolo_headP4\.0\.", "head16."),
    (r"^yolo_headP4\.1\.", "predict16."),
    (r"^(feat1|feat2|upsample)_att\.", r"attention.\1."),
    (r"channelattention\.fc\.0\.", "channelattention.fc1."),
    (r"channelattention\.fc\.2\.", "channelattention.fc2."),
    (r"spatialattention\.conv\.", "spatialattention.conv1."),
)
# A tensor that occurs in only one of the reference's attention blocks -> phi
PHI = {
    "attention.feat1.channelattention.fc1.weight": "cbam",
    "attention.feat1.fc.0.weight": "se",
    "attention.feat1.conv_1x1.weight": "ca",
    "attention.feat1.conv.weight": "eca",
}
# The reference uses Darknet's anchors, but does not stretch the box centers
MODEL_CONFIG = ModelConfig(
    anchors=list(DARKNET[2].anchors), anchor_masks=DARKNET[2].masks, new_coords=False, scale_x_y=1.0
)


def rename(name: str) -> str:
    """Convert a tensor name of the reference to ours; names that are already ours are kept."""
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def find_phi(names: Iterable[str]) -> str:
    """Return the `phi` that tensors with these names (ours) belong to."""
    known = set(names)
    for name, phi in PHI.items():
        if name in known:
            return phi
    return "none"
