"""Files that a command reads, with patience.

Everything that a command reads is opened by `open_input`. So these rules hold for all commands:

- Only regular files are read: a FIFO or a device would block, or never end.
- A read that fails because storage is out of reach for a moment is repeated.
- A file that the user names as an output is not read by the same command
  (`utils.core.outputs.claimed_outputs`).
"""

import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Set
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from utils.core.errors import UserError, nearest
from utils.core.outputs import refuse_claimed

RETRY_SECONDS = 10.0  # how long a read is repeated while storage is out of reach
FIRST_WAIT, LONGEST_WAIT = 0.1, 2.0  # seconds between two attempts, doubled each time
# Storage that may come back: network file systems, removable and virtual disks
OUTAGES = frozenset(
    getattr(errno, name)
    for name in (
        *("EIO", "ESTALE", "ETIMEDOUT", "ENOTCONN", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN"),
        *("ENETUNREACH", "ECONNRESET", "ECONNABORTED", "ENODEV", "ENXIO", "EREMOTEIO", "ENOLINK"),
        *("EAGAIN", "EBUSY", "EMFILE", "ENFILE", "ENOMEM"),
    )
    if hasattr(errno, name)
)
BLOCK = 2**20  # bytes that are hashed at a time
MAX_SIBLINGS = 1000  # in larger folders, no similar file name is suggested
ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}
if os.name == "nt":
    ABSENT.add(errno.EINVAL)  # a name with a colon or a question mark, such as an address
SEARCHED = frozenset({*ABSENT, errno.EACCES, errno.EPERM})  # for one of several places
KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)

Value = TypeVar("Value")


class ReadError(UserError):
    """A file that cannot be opened or read.

    Attributes:
        is_outage: whether its storage may be out of reach only for the moment.
    """

    def __init__(self, message: str, is_outage: bool = False) -> None:
        super().__init__(message)
        self.is_outage = is_outage


def open_input(path: str | Path, title: str = "") -> BinaryIO:
    """Open a regular file for reading.

    Args:
        path: the file.
        title: put before the path in error messages, such as an option.

    Raises:
        ReadError: it does not exist, is not a regular file, or cannot be opened.
        OverwriteError: it is also an output of this command.
    """
    return _with_patience(lambda: _open(path, title), path, title)


def read_file(path: str | Path, title: str = "", max_bytes: int | None = None) -> bytes:
    """Read a whole file.

    Args:
        path: the file, which must be regular.
        title: put before the path in error messages, such as an option.
        max_bytes: refuse a larger file.

    Raises:
        ReadError: it cannot be read, or is too large.
        OverwriteError: it is also an output of this command.
    """

    def read(file: BinaryIO) -> bytes:
        size = os.fstat(file.fileno()).st_size
        if max_bytes is not None and size > max_bytes:
            raise ReadError(
                f"{_named(title, path)}: {size:,} bytes, expected at most {max_bytes:,}"
            )
        return file.read()

    return read_with(read, path, title)


def read_with(read: Callable[[BinaryIO], Value], path: str | Path, title: str = "") -> Value:
    """Open a regular file and return `read(file)`, repeated while storage is out of reach.

    Args:
        read: reads what it needs; its `OSError` and `ValueError` become a `ReadError`.
        path: the file.
        title: put before the path in error messages, such as an option.

    Raises:
        ReadError: the file cannot be opened or read.
        OverwriteError: it is also an output of this command.
    """

    def attempt() -> Value:
        with _open(path, title) as file:
            return read(file)

    return _with_patience(attempt, path, title)


def hash_content(file: BinaryIO) -> str:
    """SHA-256 of an open file, in hexadecimal; `read_with(hash_content, path)` opens it."""
    return _continue_hash(hashlib.sha256(), file).hexdigest()


def hash_files(paths: Iterable[str | Path]) -> str:
    """SHA-256 of the contents of files, one after the other, in hexadecimal.

    Raises:
        ReadError: one cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        digest = read_with(partial(_continue_hash, digest), path)
    return digest.hexdigest()


def _continue_hash(digest: "hashlib._Hash", file: BinaryIO) -> "hashlib._Hash":
    """The hash after a file's content; the one before it is kept, for another attempt."""
    digest = digest.copy()
    for block in iter(partial(file.read, BLOCK), b""):
        digest.update(block)
    return digest


def is_outage(error: BaseException) -> bool:
    """Whether an error says that storage is out of reach, perhaps only for the moment."""
    if isinstance(error, ReadError):
        return error.is_outage
    return isinstance(error, OSError) and error.errno in OUTAGES


def check_input(path: str | Path, title: str = "") -> None:
    """Refuse what `open_input` would refuse, for a file that a library opens by its name.

    Raises:
        ReadError: it does not exist, is not a regular file, or cannot be opened.
        OverwriteError: it is also an output of this command.
    """
    open_input(path, title).close()


def find_first(paths: Iterable[str | Path]) -> Path | None:
    """The first path at which there is something: a file, a folder, a dangling link.

    A path below a folder that may not be entered, as it may be written on another machine, counts
    as absent.

    Raises:
        ReadError: a path cannot be looked up.
    """
    return next((Path(path) for path in paths if _mode(path, SEARCHED)), None)


def is_file(path: str | Path) -> bool:
    """Whether a path is a regular file.

    Raises:
        ReadError: the path cannot be looked up.
    """
    return stat.S_ISREG(_mode(path))


def is_folder(path: str | Path) -> bool:
    """Whether a path is a folder.

    Raises:
        ReadError: the path cannot be looked up.
    """
    return stat.S_ISDIR(_mode(path))


def list_folder(path: str | Path) -> list[str]:
    """The sorted names in a folder; none if there is no such folder, or none that may be entered.

    Raises:
        ReadError: the folder cannot be read.
    """
    if not stat.S_ISDIR(_mode(path, SEARCHED)):
        return []
    return _with_patience(lambda: sorted(os.listdir(path)), path, "")  # noqa: PTH208  names


def walk_folder(
    root: str | Path, on_error: Callable[[OSError], None]
) -> Iterator[tuple[Path, list[str], list[str]]]:
    """As `os.walk`, with links to folders: a link out of `root` is followed, each folder once.

    Links within `root`, and to what contains it, are left out: they would show files twice. So is
    `lost+found`, which only root may list.

    Args:
        root: the folder.
        on_error: called with the error of a folder that cannot be listed.

    Yields:
        A folder, the names of its folders (to be changed, to leave some out), and of its files.
    """
    home = Path(os.path.realpath(root))
    seen = {home}
    for folder, names, files in os.walk(root, onerror=on_error, followlinks=True):
        kept = []
        for name in sorted({*names} - {"lost+found"}):
            path = Path(folder, name)
            real = Path(os.path.realpath(path))
            is_inside = real.is_relative_to(home) or home.is_relative_to(real)
            if real not in seen and not (path.is_symlink() and is_inside):
                seen.add(real)
                kept.append(name)
        names[:] = kept
        yield Path(folder), names, files


def similar_file(path: str | Path) -> str:
    """A hint at the nearest name in the folder of a missing file; empty rather than all names."""
    try:
        names = [] if os.path.lexists(path) else os.listdir(Path(path).parent)  # noqa: PTH208
    except (OSError, ValueError):  # no such folder, or not to be listed
        return ""
    hint = nearest(Path(path).name, names) if len(names) <= MAX_SIBLINGS else ""
    return hint if hint.startswith("; did") else ""


def _mode(path: str | Path, absent: Set[int] = ABSENT) -> int:
    """Kind and permissions of what is at a path; 0 if there is nothing: an error in `absent`."""

    def attempt() -> int:
        try:
            return os.stat(path).st_mode  # noqa: PTH116  `Path("")` is the working directory
        except OSError as error:
            if error.errno not in absent:
                raise
            return stat.S_IFLNK if os.path.islink(path) else 0  # noqa: PTH114  never raises
        except ValueError:  # a NUL character in the name
            return 0

    return _with_patience(attempt, path, "")


def wait_out(
    attempt: Callable[[], Value],
    seconds: float,
    is_outage: Callable[[ReadError], bool],
    on_wait: Callable[[ReadError], None] | None = None,
) -> Value:
    """Repeat an attempt to read.

    Args:
        attempt: returns what was read.
        seconds: how long to go on.
        is_outage: whether another attempt may help after this error.
        on_wait: called once, with the first error, before the first wait.

    Raises:
        ReadError: the error of the last attempt.
    """
    end = time.monotonic() + seconds
    wait = FIRST_WAIT
    while True:
        try:
            return attempt()
        except ReadError as error:
            left = end - time.monotonic()
            if left <= 0 or not is_outage(error):
                raise
            if on_wait is not None:
                on_wait(error)
                on_wait = None
        time.sleep(min(wait, left))
        wait = min(2 * wait, LONGEST_WAIT)


def _with_patience(attempt: Callable[[], Value], path: str | Path, title: str) -> Value:
    """`attempt()`, repeated while the storage is out of reach; its errors in one line."""

    def checked() -> Value:
        try:
            return attempt()
        except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
            raise _read_error(error, path, title) from None

    return wait_out(checked, RETRY_SECONDS, lambda error: error.is_outage)


def _open(path: str | Path, title: str) -> BinaryIO:
    status = os.stat(path)  # noqa: PTH116  `Path("")` is the working directory
    if not stat.S_ISREG(status.st_mode):
        raise ReadError(f"{_named(title, path)}: is {_kind(status.st_mode)}, expected a file")
    refuse_claimed((status.st_dev, status.st_ino))
    return open(path, "rb")


def _kind(mode: int) -> str:
    return next((name for is_kind, name in KINDS if is_kind(mode)), "not a regular file")


def _named(title: str, path: str | Path) -> str:
    shown = str(path) or "''"
    return f"{title} {shown}".strip()


def _read_error(error: Exception, path: str | Path, title: str) -> ReadError:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.ENOENT:
        reason = "no such file" if not Path(path).is_symlink() else "the link leads nowhere"
    else:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
    return ReadError(f"{_named(title, path)}: {reason}", is_outage=number in OUTAGES)
