"""The YOLOv4-tiny network: backbone, neck, heads and the box parametrization."""
