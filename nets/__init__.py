"""The detector: network, box decoding, losses, weights. Knows nothing of datasets or training."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nets.inference.detections import Detections
    from nets.inference.detector import Detector
    from nets.loading import load_model

__all__ = ["Detections", "Detector", "load_model"]


def __getattr__(name: str) -> Any:
    """Import the public names on first use, so that importing a part of `nets` loads no runtime."""
    if name == "load_model":
        from nets.loading import load_model

        return load_model
    if name == "Detector":
        from nets.inference.detector import Detector

        return Detector
    if name == "Detections":
        from nets.inference.detections import Detections

        return Detections
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
