"""The detector: network, box decoding, losses, weights. Knows nothing of datasets or training."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nets.inference.detections import Detections
    from nets.inference.detector import Detector
    from nets.loading import load_model

_PROJECT = Path(__file__).resolve().parents[1]
_FOUND = find_spec("utils")  # a common name: another project's may come first
_FOLDERS = [] if _FOUND is None else list(_FOUND.submodule_search_locations or ())
if _PROJECT / "utils" not in [Path(folder).resolve() for folder in _FOLDERS]:
    _ADVICE = "put this folder at the start of PYTHONPATH, or rename the other package"
    if "utils" in sys.modules:  # imported already: no order of folders changes that
        _ADVICE = "run the detector in a process of its own, or rename the other package"
    raise ImportError(
        f"nets needs the package utils of {_PROJECT}, but found {_FOUND and _FOUND.origin}: "
        f"{_ADVICE}"
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
