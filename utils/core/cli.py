"""Helpers that the command lines share. Imports nothing slow, so that `--help` is immediate."""

import argparse
import io
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from utils.core import library_output
from utils.core.errors import UserError, is_out_of_memory, shorten
from utils.core.openmp import adapt_to_load
from utils.core.outputs import write_error, write_file
from utils.core.signals import as_stopped, install_handlers, received

STDOUT, STDERR = 1, 2  # descriptors
LONGEST_WORD = 200  # characters of a message, such as a path
OUT_OF_MEMORY = (
    "out of memory: lower train.batch_size (eval.batch_size), input_size, or data.cache_gb, "
    "or set data.cache=disk"
)
# Shared libraries that opencv-python links to and machines without a display often lack
DISPLAY_LIBRARY = re.compile(
    r"lib(GL|EGL|X|xcb|SM|ICE|gthread|glib)[^:]*: cannot open shared object file"
)


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Add `--weights`."""
    parser.add_argument(
        "--weights",
        metavar="FILE|RUN",
        help="weights file, its address, public weights such as yolov4-tiny.weights, or a run, by "
        "its folder or its name in runs/; "
        "default: the newest in runs/",
    )
    parser.add_argument(
        "--cfg", metavar="FILE", help="Darknet weights: their .cfg, if it does not lie next to them"
    )


def add_backend(parser: argparse.ArgumentParser) -> None:
    """Add `--backend`."""
    parser.add_argument(
        "--backend",
        help="torch, compile, onnxruntime, openvino, ncnn, litert or auto; default: the run's",
    )


def add_tiling(parser: argparse.ArgumentParser) -> None:
    """Add `--tile` and `--overlap`."""
    parser.add_argument(
        "--tile",
        type=int,
        metavar="PIXELS",
        help="small objects: detect in tiles of this size in every larger image, and join them",
    )
    parser.add_argument(
        "--overlap",
        type=float,
        metavar="SHARE",
        help="what a tile has in common with the next one, 0 to 0.9; default: 0.2",
    )


def show_page(page: str, out: str | None) -> None:
    """Print a page, or write it to a file.

    Args:
        page: the text.
        out: the file; None: print it.
    """
    if out is None:
        print(page)
    else:
        write_file(out, page)
        print(f"written: {out}")


def run_command(main: Callable[[], None]) -> None:
    """Run a command's `main` and turn expected errors into one line on stderr and an exit code.

    Modules in the working directory can be imported: `phi` may name a block in one of them.

    `UserError`, missing libraries, a full disk and too little memory exit with 2; a signal exits
    with 128 and its number. A closed pipe (`python eval.py | head`) exits silently with 141. Output
    is line-buffered, so that progress can be followed through a pipe or in a file.
    """
    adapt_to_load()
    try:
        install_handlers()
        _open_closed_streams()
        library_output.separate()
        if isinstance(sys.stdout, io.TextIOWrapper):
            # backslashreplace: class names may be in a script that the terminal cannot encode
            sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
        search_working_directory()
        main()
    except UserError as error:
        _fail(str(error))
    except KeyboardInterrupt as error:
        stopped = as_stopped(error)
        print(stopped, file=sys.stderr)
        sys.exit(128 + stopped.signum)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        if received() is not None:  # the main process has ended, and its partners lost it
            sys.exit(128 + int(received() or 0))
        message = _known_problem(error)
        if message is None:
            raise
        _fail(message)


def _open_closed_streams() -> None:
    """Let `2>&-` mean `2>/dev/null`: else a file of ours gets the descriptor and the messages."""
    if sys.stdout is not None and sys.stderr is not None:
        return
    while (number := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        pass
    os.close(number)
    sys.stdout = sys.stdout or open(STDOUT, "w", closefd=False)  # noqa: SIM115  to the end
    sys.stderr = sys.stderr or open(STDERR, "w", closefd=False)  # noqa: SIM115


def _known_problem(error: Exception) -> str | None:
    """What a library's error means to the user; None if it is a bug of this program."""
    if isinstance(error, ImportError):
        return _install_hint(error)
    if is_out_of_memory(error):
        return OUT_OF_MEMORY
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{write_error(error)}"
    return None


def search_working_directory() -> None:
    """Let modules in the working directory be imported, after those of the project."""
    try:
        search_folder(Path.cwd())
    except FileNotFoundError:
        raise UserError("the working directory was removed: change to another") from None


def search_folder(folder: Path) -> None:
    """Let modules in a folder be imported, after all others."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _fail(message: str) -> None:
    words = [shorten(word, LONGEST_WORD) for word in message.split()]
    print(f"error: {' '.join(words)}", file=sys.stderr)
    sys.exit(2)


def _install_hint(error: ImportError) -> str | None:
    """Return how to install the missing library, in one line; None if the error is our own bug."""
    if DISPLAY_LIBRARY.search(str(error)):
        return (
            f"OpenCV cannot be imported ({error}); on a machine without a display use the package "
            "that needs none: "
            "pip uninstall -y opencv-python && pip install opencv-python-headless"
        )
    package = (error.name or "").partition(".")[0]
    project = Path(__file__).resolve().parents[2]
    is_ours = (project / package).exists() or (project / f"{package}.py").exists()
    if isinstance(error, ModuleNotFoundError) and package and not is_ours:
        return f"the library {package} is not installed: pip install -r requirements.txt"
    return None
