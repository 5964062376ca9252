"""One module per dataset format; each reads a split into samples."""
