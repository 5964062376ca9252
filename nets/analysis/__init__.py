"""Inspecting a network: operations, layers, attention maps, Grad-CAM."""
