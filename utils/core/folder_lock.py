"""One command at a time in a folder."""

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from utils.core.errors import UserError
from utils.core.outputs import write_file

LOCK = ".lock"
HOLDER = ".holder"  # who holds the lock: a readable line, and a token unique to this command


@contextmanager
def locked(folder: Path, work: str, advice: str) -> Iterator[None]:
    """Keep every other command that does the same work out of `folder`.

    The operating system holds the lock, so it is released however the process ends. On a file
    system without locks, nothing is locked.

    Args:
        folder: an existing folder.
        work: what the holder is doing, for the error message.
        advice: what to do if the folder is in use, for the error message.

    Raises:
        UserError: another command holds the lock.
    """
    lock = filelock.FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise UserError(
            f"{folder}: another {work} there{_describe_holder(folder)}: {advice}"
        ) from None
    except (NotImplementedError, OSError):
        pass  # some network file systems have no locks; the command must work there too
    try:
        write_holder(folder)
        yield
    finally:
        lock.release()


def write_holder(folder: Path) -> None:
    """Sign the folder, so that `read_holder` returns the same text on all machines that see it."""
    holder = f"{socket.gethostname()}, process {os.getpid()}\n{secrets.token_hex(8)}\n"
    write_file(folder / HOLDER, holder, durable=True)  # other machines read it meanwhile


def read_holder(folder: Path) -> str:
    """The signature of the command that holds, or last held, the lock."""
    return (folder / HOLDER).read_text(encoding="utf-8")


def _describe_holder(folder: Path) -> str:
    with suppress(OSError):
        lines = read_holder(folder).splitlines()
        return f" ({lines[0]})" if lines else ""
    return ""
