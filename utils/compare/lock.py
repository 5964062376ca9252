"""One `compare.py` at a time in a folder."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from utils.core.errors import UserError

LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep every other `compare.py` out of `folder`.

    The operating system holds the lock: it goes with the process, however that ends. The file stays; it names the
    last holder. Where the file system knows no locks, there is none.

    Raises:
        UserError: another one is at work there.
    """
    with open(folder / LOCK, "a+", encoding="utf-8") as file:
        if not _take(file):
            raise UserError(
                f"{folder}: compare.py is at work there already{_holder(file)}: wait, or give another --out"
            )
        file.truncate(0)
        file.write(f"{socket.gethostname()}, process {os.getpid()}")
        file.flush()
        os.fsync(file.fileno())  # other machines read it while the file is open
        yield


def _holder(file: TextIO) -> str:
    file.seek(0)
    holder = file.read().strip()
    return f" ({holder})" if holder else ""


if sys.platform == "win32":
    import msvcrt

    FAR = 1 << 30  # Windows lets nobody read what is locked: the holder's name stays readable

    def _take(file: TextIO) -> bool:
        os.lseek(file.fileno(), FAR, os.SEEK_SET)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(file.fileno(), 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _take(file: TextIO) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True  # some network file systems have no locks; a comparison must be possible there too
        return True
