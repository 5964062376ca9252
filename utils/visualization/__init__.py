"""Drawing: boxes on images, heatmaps, plots, video."""
