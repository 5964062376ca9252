"""The detector from other folders and other projects."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import hubconf
from nets import load_model
from utils.core.images import write_image
from utils.engine.experiment import Result

PROJECT = Path(__file__).parents[1]
CHANGES = {"device": "cpu", "predict.score": 0.001}  # a network of two epochs is not sure of much
HUB = f"""
import sys, torch
options = dict(source="local", weights=sys.argv[2], **{CHANGES})
detector = torch.hub.load(sys.argv[1], "yolov4_tiny", **options)
print(detector(sys.argv[3]).boxes.tolist())
"""
IMPORT = f"""
import sys
from nets import load_model
print(load_model(sys.argv[2], {CHANGES})(sys.argv[3]).boxes.tolist())
"""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (80, 100, 3)).astype(np.uint8)
    write_image(tmp_path / "image.png", noise)
    return tmp_path / "image.png"


def run_elsewhere(
    folder: Path, script: str, *args: object, path: str = ""
) -> subprocess.CompletedProcess:
    """Run a script of another project in its folder."""
    folder.mkdir(exist_ok=True)
    (folder / "main.py").write_text(script)
    command = [sys.executable, "main.py", *map(str, args)]
    # one thread as here: sums of two threads differ in the last digits
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(("script", "path"), [(HUB, ""), (IMPORT, str(PROJECT))])
def test_another_project_gets_the_same_boxes(
    tmp_path: Path, trained: Result, image: Path, script: str, path: str
):
    args = (PROJECT, trained.run, image)
    done = run_elsewhere(tmp_path / "elsewhere", script, *args, path=path)
    boxes = load_model(trained.run, CHANGES)(image).boxes.tolist()
    assert boxes and done.stdout.strip() == str(boxes), done.stderr
    assert {file.name for file in (tmp_path / "elsewhere").iterdir()} == {"main.py"}


def test_every_package_that_it_needs_is_named():
    script = "import sys, hubconf, nets.loading, nets.inference.drawing; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    names = {"pycocotools", "jinja2", "tqdm", "yaml", "pydantic", "matplotlib", "filelock", "cv2"}
    names |= {"torch", "torchvision", "numpy", "PIL"}
    assert set(hubconf.dependencies) == names & set(done.stdout.split())


@pytest.mark.parametrize(
    ("first", "advice"), [("", "start of PYTHONPATH"), ("import utils", "a process of its own")]
)
def test_another_package_of_the_same_name_is_named(first: str, advice: str, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "utils.py").touch()
    done = run_elsewhere(tmp_path / "elsewhere", f"{first}\n{IMPORT}", path=str(PROJECT))
    message = done.stderr.splitlines()[-1]
    assert message.startswith(f"ImportError: nets needs the package utils of {PROJECT}, but ")
    assert str(tmp_path / "elsewhere" / "utils.py") in message and advice in message
