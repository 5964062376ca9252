"""Which version of the program ran: a hash of its source files, and its commit."""

import hashlib
import subprocess

from utils.core.config import PROJECT_DIR
from utils.core.inputs import hash_content, read_with

PACKAGES = ("nets", "utils")


def hash_code() -> str:
    """SHA-256 of the names and contents of the project's own `.py` files, in hexadecimal."""
    files = list(PROJECT_DIR.glob("*.py"))
    for package in PACKAGES:
        files += (PROJECT_DIR / package).rglob("*.py")
    digest = hashlib.sha256()
    for file in sorted(files):
        name = file.relative_to(PROJECT_DIR).as_posix()
        digest.update(f"{read_with(hash_content, file)} {name}\n".encode())
    return digest.hexdigest()


def read_commit() -> str | None:
    """The commit that is checked out, with `-dirty` if files differ from it; None without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=PROJECT_DIR, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
