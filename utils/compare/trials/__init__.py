"""Running the trials, here or on Ray, and reading back what they left."""
