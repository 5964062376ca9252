"""Files of the user: read with patience, written whole or not at all.

Everything that a command reads is opened by `open_input`, and everything it writes goes through
`write_file` or `new_file`. So these rules hold for all commands:

- Only regular files are read: a FIFO or a device would block, or never end.
- A read that fails because storage is out of reach for a moment is repeated.
- A file appears under its name only when it is complete. A process that is killed, or a disk that
  is full, leaves the former file.
- A file that the user names as an output is not read by the same command, and no two outputs are
  the same file (`claimed_outputs`).
"""

import errno
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from utils.core.errors import UserError, nearest

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
TOKEN_BYTES = 8  # of the random name of an unfinished file
UNFINISHED = f".{'?' * 2 * TOKEN_BYTES}.part"  # a pattern of such names, without suffix
ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}
if os.name == "nt":
    ABSENT.add(errno.EINVAL)  # a name with a colon or a question mark, such as an address
KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)

Value = TypeVar("Value")
FileId = tuple[int, int]  # device and inode

_claims: dict[Path, str] = {}  # output of this command -> its option and name
_claimed_files: dict[FileId, str] = {}  # the same for those that exist already
_refused: dict[FileId, str] = {}  # those of them that this command wanted to read


class ReadError(UserError):
    """A file that cannot be opened or read.

    Attributes:
        is_outage: whether its storage may be out of reach only for the moment.
    """

    def __init__(self, message: str, is_outage: bool = False) -> None:
        super().__init__(message)
        self.is_outage = is_outage


class WriteError(UserError):
    """A file that cannot be written."""


class OverwriteError(UserError):
    """An input that is also an output of the command; it must not be skipped as unreadable."""


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

    Raises:
        ReadError: a path cannot be looked up.
    """
    return next((Path(path) for path in paths if _mode(path)), None)


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
    """The sorted names in a folder; none if there is no such folder.

    Raises:
        ReadError: the folder cannot be read.
    """
    if not is_folder(path):
        return []
    return _with_patience(lambda: sorted(os.listdir(path)), path, "")  # noqa: PTH208  names


def similar_file(path: str | Path) -> str:
    """A hint at the nearest name in the folder of a missing file; empty rather than all names."""
    try:
        names = [] if os.path.lexists(path) else os.listdir(Path(path).parent)  # noqa: PTH208
    except (OSError, ValueError):  # no such folder, or not to be listed
        return ""
    hint = nearest(Path(path).name, names) if len(names) <= MAX_SIBLINGS else ""
    return hint if hint.startswith("; did") else ""


def _mode(path: str | Path) -> int:
    """Kind and permissions of what is at a path; 0 if there is nothing."""

    def attempt() -> int:
        try:
            return os.stat(path).st_mode  # noqa: PTH116  `Path("")` is the working directory
        except OSError as error:
            if error.errno not in ABSENT:
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
    _refuse_claimed((status.st_dev, status.st_ino))
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


# outputs


@contextmanager
def claimed_outputs(*outputs: tuple[str, str | Path | None]) -> Iterator[None]:
    """Protect files that the user names as outputs, in a block that reads and writes.

    Inside the block, `open_input` and its like refuse these files.

    Args:
        *outputs: option that names the file, for error messages, and the file; None: not given.

    Raises:
        UserError: one is a folder, lies in something that is not one, or is another output.
    """
    claims, files, refused = dict(_claims), dict(_claimed_files), dict(_refused)
    try:
        for option, path in outputs:
            if path is not None:
                _claim(Path(path), f"{option} {path}")
        yield
    finally:
        _claims.clear()
        _claims.update(claims)
        _claimed_files.clear()
        _claimed_files.update(files)
        _refused.clear()
        _refused.update(refused)


def _claim(path: Path, name: str) -> None:
    resolved = _resolve(path, name)
    other = _claims.get(resolved)
    status = _status(resolved, name)
    if status is not None:
        if stat.S_ISDIR(status.st_mode):
            raise UserError(f"{name}: is a folder, expected a file")
        if not stat.S_ISREG(status.st_mode):
            return  # such as /dev/stdout, which several outputs may share
        other = other or _claimed_files.get((status.st_dev, status.st_ino))
        _claimed_files.setdefault((status.st_dev, status.st_ino), name)
    if other is not None and other != name:
        raise UserError(f"{name}: is also the file of {other}: give another name")
    _claims[resolved] = name
    check_folder(path, name)


def _refuse_claimed(file: FileId) -> None:
    output = _claimed_files.get(file)
    if output is not None:
        _refused[file] = f"{output}: would overwrite a file that this command reads"
        raise OverwriteError(_refused[file])


def _resolve(path: Path, name: str) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of links
        raise UserError(f"{name}: {getattr(error, 'strerror', None) or error}") from None


def _status(path: Path, name: str) -> os.stat_result | None:
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{name}: {(error.strerror or str(error)).lower()}") from None


def check_folder(path: Path, name: str) -> None:
    """Refuse an output whose folder cannot be made or written to, before the work is done.

    Args:
        path: the file or folder to write.
        name: option or key with the path, for the error message.

    Raises:
        UserError: its folder cannot be made, or not be written to.
    """
    path = _resolve(path, name)
    folder = path.parent
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise UserError(f"{name}: {folder} is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{name}: cannot write in {folder}: permission denied")


def write_file(path: str | Path, content: bytes | str, durable: bool = False) -> None:
    """Write a file, whole or not at all; missing folders are made.

    Args:
        path: the file.
        content: bytes; or text, which is written as UTF-8.
        durable: wait until it is on the disk, so that it survives a power failure.

    Raises:
        WriteError: the file cannot be written.
    """
    # backslashreplace: file names that are not UTF-8 reach JSON as valid escapes
    data = content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace")
    with new_file(path) as part, open(part, "wb") as file:
        file.write(data)
        if durable:
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def new_file(path: str | Path, name: str | None = None) -> Iterator[Path]:
    """Yield another name to write a file under; it gets its own name when the block ends.

    After an error, the unfinished file is removed; a block may also remove it itself. Something
    that is not a regular file, such as /dev/stdout, is written to directly.

    Args:
        path: the file; missing folders are made.
        name: of the unfinished file, without suffix; None: a new one.

    Raises:
        WriteError: the file cannot be written.
        OverwriteError: this command has wanted to read the file, even if that went unnoticed.
    """
    target = _resolve(Path(path), f"cannot write {path}")
    try:
        if target.exists() and not target.is_file():
            if target.is_dir():
                raise IsADirectoryError(errno.EISDIR, "is a folder, expected a file")
            yield target
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        # unique, so that two processes cannot write into each other's file
        part = target.with_name(f"{name or unfinished_name()}{target.suffix}")
        try:
            yield part
            if part.exists():
                _forget(target)
                part.replace(target)
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)
    except BrokenPipeError:  # the reader of a pipe has seen enough
        raise
    except OSError as error:
        raise WriteError(f"cannot write {path}: {write_error(error)}") from None


def unfinished_name() -> str:
    """A new name that `UNFINISHED` matches."""
    return f".{secrets.token_hex(TOKEN_BYTES)}.part"


def _forget(target: Path) -> None:
    """Drop the claim on a file that is about to be replaced: its inode will be used again.

    Raises:
        OverwriteError: the file is an input.
    """
    with suppress(OSError):
        status = target.stat()
        file = status.st_dev, status.st_ino
        if file in _refused:
            raise OverwriteError(_refused[file])
        _claimed_files.pop(file, None)


def write_error(error: OSError) -> str:
    """The reason why a file cannot be written, with advice if the disk is full."""
    reason = (error.strerror or str(error)).lower()
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{reason}: free some space, or write to another disk"
    return reason
