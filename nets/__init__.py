"""The detector: network, box decoding, losses, weights. Knows nothing of datasets or training."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import utils

if TYPE_CHECKING:
    from nets.inference.detections import Detections
    from nets.inference.detector import Detector
    from nets.loading import load_model

_PROJECT = Path(__file__).resolve().parents[1]
_FOUND = [Path(folder).resolve() for folder in getattr(utils, "__path__", [])]
if _PROJECT / "utils" not in _FOUND:  # a common name: another project's may come first
    raise ImportError(
        f"nets needs the package utils of {_PROJECT}, but {utils.__file__} was found first: "
        "put this folder at the start of PYTHONPATH, or rename the other package",
        name="utils",
        path=utils.__file__,
    )

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
