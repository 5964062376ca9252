"""The basis of the project: imports nothing from the rest of it."""
