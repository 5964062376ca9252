"""The attention blocks, found by the registry: one file per block, or per paper."""
