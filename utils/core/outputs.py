"""Files that a command writes: whole, or not at all.

Everything that a command writes goes through `write_file` or `new_file`. So these rules hold for
all commands:

- A file appears under its name only when it is complete. A process that is killed, or a disk that
  is full, leaves the former file.
- A file that the user names as an output is not read by the same command, and no two outputs are
  the same file (`claimed_outputs`).
"""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from utils.core.errors import UserError

TOKEN_BYTES = 8  # of the random name of an unfinished file
UNFINISHED = f".{'?' * 2 * TOKEN_BYTES}.part"  # a pattern of such names, without suffix

FileId = tuple[int, int]  # device and inode

_claims: dict[Path, str] = {}  # output of this command -> its option and name
_claimed_files: dict[FileId, str] = {}  # the same for those that exist already
_refused: dict[FileId, str] = {}  # those of them that this command wanted to read


class WriteError(UserError):
    """A file that cannot be written."""


class OverwriteError(UserError):
    """An input that is also an output of the command; it must not be skipped as unreadable."""


@contextmanager
def claimed_outputs(*outputs: tuple[str, str | Path | None]) -> Iterator[None]:
    """Protect files that the user names as outputs, in a block that reads and writes.

    Inside the block, `utils.core.inputs.open_input` and its like refuse these files.

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


def refuse_claimed(file: FileId) -> None:
    """Refuse to read a file that is an output of this command.

    Raises:
        OverwriteError: it is.
    """
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
