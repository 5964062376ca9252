"""Files that belong together: written in a folder of their own, and named together."""

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import filelock

from utils.core.outputs import UNFINISHED, new_file, unfinished_name
from utils.core.signals import deferred

LOCK = ".lock"  # in an unfinished folder; its process holds it
YOUNG = 1.0  # seconds in which a folder that was just made gets its lock


@contextmanager
def new_files(files: Sequence[Path]) -> Iterator[list[Path]]:
    """Yield other names to write files under; they get their own if the block ends without error.

    They lie in a folder of their own next to the files, which is removed in the end. What killed
    processes left of such folders is removed, too.

    Args:
        files: in one folder, which is made if it is missing; each with another suffix.

    Raises:
        WriteError: a file cannot be written.
    """
    with new_file(files[0]) as unused:  # makes the folder, or says why not
        parent = unused.parent
    remove_abandoned(parent)
    with _locked_folder(parent) as folder:
        parts = [folder / file.name for file in files]
        yield parts
        # the stack ends when all are next to their places, and moves the first file last
        with deferred(), ExitStack() as names:
            for part, file in zip(parts, files, strict=True):
                shutil.move(part, names.enter_context(new_file(file, folder.name)))


@contextmanager
def _locked_folder(parent: Path) -> Iterator[Path]:
    folder = parent / unfinished_name()
    folder.mkdir(mode=0o700)
    lock = filelock.FileLock(folder / LOCK, timeout=0)
    try:
        with suppress(NotImplementedError, OSError):  # a file system without locks
            lock.acquire()
        yield folder
    finally:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(parent: Path) -> None:
    """Remove the unfinished folders of processes that were killed: nobody holds their locks."""
    for folder in parent.glob(UNFINISHED):
        with suppress(filelock.Timeout, NotImplementedError, OSError):
            if time.time() - folder.stat().st_mtime > YOUNG:
                with filelock.FileLock(folder / LOCK, timeout=0):
                    for part in parent.glob(f"{folder.name}.*"):
                        part.unlink()
                    shutil.rmtree(folder, ignore_errors=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left; only while no other process writes into the folder."""
    remove_abandoned(folder)
    for path in folder.glob(f"{UNFINISHED}*"):
        with suppress(OSError):
            path.unlink()  # not the folders that are in use
