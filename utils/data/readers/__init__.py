"""One module per dataset format, each with a function `read` that reads one split."""
