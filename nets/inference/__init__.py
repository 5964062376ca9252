"""From images to detections: the detector, its backends, streaming. Imports nothing itself."""
