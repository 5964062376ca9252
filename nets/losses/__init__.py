"""Target assignment and the training loss."""
