"""Run folders, `<output>/<name>`: creation and lookup.

A run is given by the path of its folder or by its name inside the output folder, which is `output`
for commands that take KEY=VALUE, and `runs` for the others.
"""

import os
from pathlib import Path

from nets.io.downloads import is_remote, locate_weights, suggest_public
from utils.core.config import dump_config
from utils.core.errors import UserError, nearest, shorten
from utils.core.inputs import check_input, is_file, is_folder
from utils.core.outputs import write_error, write_file
from utils.core.schema import Config

BEST, LAST, CONFIG = "best.pt", "last.pt", "config.yaml"
OUTPUT = str(Config.model_fields["output"].default)


def create_run(config: Config, run: Path | None = None) -> Path:
    """Make the folder of a new run and write `config.yaml` into it.

    Args:
        config: the experiment.
        run: the folder; None: `<output>/<name>`, with `-2`, `-3`, ... appended if that exists.

    Raises:
        UserError: the folder cannot be made.
    """
    if run is None:
        run = make_new_folder(Path(config.output) / config.name, f"output={config.output}")
    write_file(run / CONFIG, dump_config(config))
    return run


def make_new_folder(base: Path, asked_by: str) -> Path:
    """Make the folder `base`, or the first of `base-2`, `base-3`, ... that is free.

    Args:
        base: the folder.
        asked_by: key or option, for the error message.

    Raises:
        UserError: the folder cannot be made.
    """
    folder, number = base, 1
    while True:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{asked_by}: cannot make folder {folder.parent}: {write_error(error)}"
            ) from None
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1
            folder = base.with_name(f"{base.name}-{number}")
        except OSError as error:
            raise UserError(
                f"{asked_by}: cannot make folder {folder}: {write_error(error)}"
            ) from None


def find_run(run: str | Path, output: str = OUTPUT) -> Path:
    """Return the folder of a run that can be resumed.

    Args:
        run: the folder, its `last.pt`, or a name inside `output`.
        output: the folder of the runs.

    Raises:
        UserError: there is no `last.pt` in it; the message says what to do.
    """
    folders = []
    for candidate in (Path(run), Path(output) / run):
        folder = candidate.parent if is_file(candidate) else candidate
        if is_file(folder / LAST):
            return folder
        folders.append(folder)
    for folder in folders:
        if is_file(folder / CONFIG):
            raise UserError(
                f"--resume {run}: {folder} has no {LAST}, the training ended before it was saved; "
                f"start again with: python train.py --config {folder / CONFIG}"
            )
    known = [path.parent.name for path in Path(output).glob(f"*/{LAST}")]
    raise UserError(
        f"--resume {shorten(str(run))}: no {LAST} in that folder nor in "
        f"{shorten(str(Path(output) / run))}{nearest(Path(run).name, known)}"
    )


def find_weights(weights: str | Path | None, output: str = OUTPUT) -> Path:
    """Return the weights file that the user means.

    Args:
        weights: a file, its address, the name of public weights, the folder of a run or its name
            inside `output`; None: the newest run.
        output: the folder of the runs.

    Raises:
        UserError: there are no such weights; the message says what to do.
    """
    if weights is None:
        return all_weights(output)[0]
    candidates = (Path(weights), Path(output) / weights)
    for candidate in candidates:
        for path in (candidate, candidate / BEST, candidate / LAST):
            if is_file(path):
                return path
    for candidate in candidates:
        if is_folder(candidate):
            raise UserError(f"--weights {candidate}: no {BEST} in that folder")
    if os.path.lexists(weights):
        check_input(weights, "--weights")  # says what it is instead
    if is_remote(weights):
        return locate_weights(weights)
    known = [str(path.parent) for path in Path(output).glob(f"*/{BEST}")]
    hint = nearest(str(weights), known)
    if not hint.startswith("; did"):
        hint = suggest_public(str(weights)) or hint
    raise UserError(f"--weights {shorten(str(weights))}: no such file or run{hint}")


def all_weights(output: str = OUTPUT) -> list[Path]:
    """Return the best weights of all runs in `output`, the newest first.

    Raises:
        UserError: there are none; the message says what to do.
    """
    files = list(Path(output).glob(f"*/{BEST}"))
    if not files:
        raise UserError(
            f"no trained weights in {output}/: train first (python train.py --config shapes.yaml) "
            "or name a file or run with --weights"
        )
    return sorted(files, key=lambda path: path.stat().st_mtime, reverse=True)
