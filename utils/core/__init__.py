"""What everything else builds on; imports nothing of the project above it."""
