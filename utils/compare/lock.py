"""One `compare.py` at a time in a folder."""

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from utils.core.errors import UserError, require_package

LOCK = ".lock"
HOLDER = ".holder"  # who holds the lock: a readable line, and a token unique to this command


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep every other `compare.py` out of `folder`.

    The operating system holds the lock, so it is released however the process ends. On a file
    system without locks, nothing is locked.

    Raises:
        UserError: another command holds the lock.
    """
    filelock = require_package("filelock", "compare.py")
    lock = filelock.FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise UserError(
            f"{folder}: another compare.py is working there{_describe_holder(folder)}:"
            " wait, or give another --out"
        ) from None
    except (NotImplementedError, OSError):
        pass  # some network file systems have no locks; compare.py must work there too
    try:
        write_holder(folder)
        yield
    finally:
        lock.release()


def write_holder(folder: Path) -> None:
    """Sign the folder, so that `read_holder` returns the same text on all machines that see it."""
    holder = f"{socket.gethostname()}, process {os.getpid()}\n{secrets.token_hex(8)}\n"
    with open(folder / HOLDER, "w", encoding="utf-8") as file:
        file.write(holder)
        file.flush()
        os.fsync(file.fileno())  # other machines read it while the command runs


def read_holder(folder: Path) -> str:
    """The signature of the command that holds, or last held, the lock."""
    return (folder / HOLDER).read_text(encoding="utf-8")


def _describe_holder(folder: Path) -> str:
    with suppress(OSError):
        lines = read_holder(folder).splitlines()
        return f" ({lines[0]})" if lines else ""
    return ""
