"""Comparing detections with the objects in the images."""

from utils.metrics.detection_metrics import RECALLS, ClassMetrics, Metrics, evaluate

__all__ = ["RECALLS", "ClassMetrics", "Metrics", "evaluate"]
