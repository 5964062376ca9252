"""Complaints of libjpeg and libpng, told by file."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[3]
THREADS = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from utils.core.images import FileState, decode_image
from utils.core.library_output import separate, watched

separate()
paths = sorted(Path(sys.argv[1]).iterdir())
with ThreadPoolExecutor(4) as pool:
    states = pool.map(lambda path: decode_image(path.read_bytes(), path)[1], paths)
    print(*(path.name for path, state in zip(paths, states) if state == FileState.CORRUPT))
watched(lambda: os.write(2, b"from a library"))
print("from Python", file=sys.stderr)
"""


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty JPEG files, three of them with garbage in front of their end marker."""
    for index in range(40):
        noise = np.random.default_rng(index).integers(0, 256, (120, 160, 3)).astype(np.uint8)
        content = io.BytesIO()
        Image.fromarray(noise).save(content, "JPEG")
        raw = content.getvalue()
        if index in (3, 4, 30):
            raw = raw[:-2] + bytes(range(1, 60)) + raw[-2:]
        (tmp_path / f"{index:02}.jpg").write_bytes(raw)
    return tmp_path


def test_the_right_files_are_told_from_many_threads(folder: Path):
    done = run(folder, "-c", THREADS, str(folder))
    assert done.stdout.split() == ["03.jpg", "04.jpg", "30.jpg"], done.stderr
    assert done.stderr == "from a libraryfrom Python\n"


OTHERS = """
import os, sys, threading, time
from utils.core.library_output import separate, watched

def slow():
    started.set()
    ended.wait(60)

separate()
started, ended = threading.Event(), threading.Event()
thread = threading.Thread(target=watched, args=(slow,))
thread.start()
started.wait(60)
complained = watched(lambda: os.write(2, b"from another thread\\n"))[1]
print("still decoding", complained, file=sys.stderr)
ended.set()
thread.join()
print(watched(lambda: os.write(2, b"Corrupt JPEG data: of a test\\n"))[1], file=sys.stderr)
"""


def test_other_messages_are_no_complaints_and_do_not_wait_for_all_decoders(folder: Path):
    done = run(folder, "-c", OTHERS)
    assert done.stderr == "from another thread\nstill decoding False\nTrue\n"


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="a file in memory is Linux's")
def test_no_folder_for_temporary_files_is_needed(folder: Path):
    script = "import tempfile\ntempfile.TemporaryFile = None\n" + THREADS
    done = run(folder, "-c", script, str(folder))
    assert done.stdout.split() == ["03.jpg", "04.jpg", "30.jpg"], done.stderr


def test_a_dataset_counts_them_by_name(folder: Path):
    for path in folder.glob("*.jpg"):
        path.with_suffix(".txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (folder / "classes.txt").write_text("noise\n")
    done = run(folder, "-m", "utils.data", "check", "--root", str(folder))
    assert done.returncode == 1
    assert "image corrupt (used as the decoder restores it)" in done.stdout
    for name in ("03.jpg", "04.jpg", "30.jpg"):
        assert str(folder / name) in done.stdout
    assert "Corrupt JPEG data" not in done.stderr
