"""The detector: network, decoding, loss, weights. Knows nothing of data sets or training."""

from nets.detections import Detections
from nets.loading import load_model
from nets.predictor import Detector

__all__ = ["Detections", "Detector", "load_model"]
