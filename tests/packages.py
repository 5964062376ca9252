"""Optional packages that a test needs."""

import importlib.util

import pytest


def skip_without(*packages: str) -> None:
    """Skip the test unless all these packages are installed."""
    for package in packages:
        if not importlib.util.find_spec(package):
            pytest.skip(f"needs {package}: pip install {package}")
