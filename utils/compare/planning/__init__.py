"""What is compared: settings, seeds and controls, the record and the plan file."""
