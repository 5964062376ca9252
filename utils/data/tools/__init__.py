"""The parts of `python -m utils.data`: datasets are checked, described, divided, converted."""
