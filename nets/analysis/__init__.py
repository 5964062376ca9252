"""Looking into a network: operations, layers, attention maps, Grad-CAM."""
