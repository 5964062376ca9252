"""Entry point of `torch.hub`: a detector from another project, without installing this one.

detector = torch.hub.load(DIR, "yolov4_tiny", source="local", weights=DIR + "/runs/voc")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nets import Detector

# fmt: off
dependencies = [
    "torch", "torchvision", "numpy", "cv2", "PIL", "matplotlib", "tqdm", "yaml", "pydantic",
    "filelock",
]
# fmt: on


def yolov4_tiny(weights: str, **changes: Any) -> "Detector":
    """Load a detector.

    Args:
        weights: a run's folder or a weights file, as for `nets.load_model`.
        **changes: changes to its configuration, e.g. `device="cpu"`, `precision="fp32"`.

    Returns:
        A `Detector`: call it with an image or a list of images.

    Raises:
        UserError: the file is missing or is not a weights file.
    """
    from nets import load_model

    return load_model(weights, **changes)
