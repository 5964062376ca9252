"""The detector: network, decoding, loss, weights. Knows nothing of datasets or training."""

from nets.inference.detections import Detections
from nets.inference.detector import Detector
from nets.loading import load_model

__all__ = ["Detections", "Detector", "load_model"]
