"""Detections of other programs, in COCO's formats, as trials."""
