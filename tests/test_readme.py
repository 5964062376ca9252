"""Every command of the README is typed, in its order, in a copy of the project with tiny datasets.

Only what cannot be the same is replaced: `/data/` becomes a folder with drawn datasets, a camera's
address a video, the configurations get a small network input and few epochs, measurements their
`--quick` or a tenth of the time, `torchrun` two processes. Packages are installed by `.ci/run`,
which types the README's first two commands in a new environment.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from dataset_files import Item, make_image, write_voc

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text(encoding="utf-8")
COPIED = ("nets", "utils", "configs", "model_data", "docs")
TINY = {
    "device": "cpu",
    "precision": "fp32",
    "threads": 1,
    "input_size": 64,
    "data": {"shapes_train": 8, "shapes_val": 8},
    "train": {"epochs": 1, "batch_size": 4, "optimizer": "sgd"},
}
DEFECTS = ("crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale", "scratches")
PARTS = ("bolt", "nut", "washer")
ANIMALS = ("cat", "dog", "horse")
# What is added to commands that would take minutes
ADDED = {
    "python -m utils.benchmark train": "--quick",
    "python -m utils.benchmark": "data --quick",
    "python -m nets.cost_table --out": "se --quick",
    "python -m nets.cost_table cbam": "--quick",
    "python compare.py": "--seeds 0",
}
CAMERA = "rtsp://camera/stream"
INSTALLED = ("pip install", "pytest")  # `.ci/run` does both


def blocks(language: str) -> list[str]:
    """The fenced blocks of the README in a language; "": commands."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for name, text in found if name == language]


def commands() -> list[str]:
    """The commands, without comments and without what `.ci/run` does."""
    lines = [line for block in blocks("") for line in block.splitlines()]
    lines += re.findall(r"`(python [^`]*)`", README)
    found = []
    for line in lines:
        for part in re.sub(r"\s+#.*", "", line).split(" && "):
            if part and not part.startswith(INSTALLED):
                found.append(part)
    return found


def items(names: tuple[str, ...], prefix: str) -> list[Item]:
    """Eight images with an object of each class."""
    boxes = [(name, 8 + 40 * i, 10, 40 + 40 * i, 50) for i, name in enumerate(names)]
    return [Item(f"{prefix}{index}.jpg", (250, 64), boxes) for index in range(8)]


def draw_datasets(data: Path) -> None:
    for split in ("train", "test"):
        write_voc(data / "NEU-DET", items(DEFECTS, split), split)
    for split in ("train", "val"):
        write_voc(data / "tools", items(PARTS, split), split)
    for year, split in (("2007", "trainval"), ("2007", "test"), ("2012", "trainval")):
        write_voc(data / f"VOCdevkit/VOC{year}", items(ANIMALS, year + split), split)
    write_voc(data / "screws", items(PARTS, "screw"))


def draw_images(folder: Path) -> None:
    make_image((640, 480)).save(folder / "street.jpg")
    make_image((900, 700)).save(folder / "aerial.png")
    (folder / "photos" / "monday").mkdir(parents=True)
    make_image((64, 48), 1).save(folder / "photos" / "a.jpg")
    make_image((48, 64), 2).save(folder / "photos" / "monday" / "a.jpg")
    for name in ("drive.mp4", "night.mp4"):
        codec = cv2.VideoWriter.fourcc(*"mp4v")
        video = cv2.VideoWriter(str(folder / name), codec, 10, (640, 360))
        for seed in range(12):
            video.write(np.asarray(make_image((640, 360), seed)))
        video.release()


def shrink(path: Path, data: Path) -> None:
    """Make a configuration train in seconds, on the drawn data."""
    values = yaml.safe_load(path.read_text().replace("/data/", f"{data}/"))
    for key, value in TINY.items():
        values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
    root = values["data"].get("root")
    if root and not Path(root).is_absolute():
        values["data"]["root"] = str(data / Path(root).name)
    path.write_text(yaml.safe_dump(values))


def measure_briefly(path: Path) -> None:
    """Time each setting of a comparison for a fifth of a second."""
    code = path.read_text()
    assert "\nSECONDS = 2.0" in code
    path.write_text(code.replace("\nSECONDS = 2.0", "\nSECONDS = 0.2"))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which the README's commands take seconds."""
    folder = tmp_path_factory.mktemp("readme") / "project"
    data = folder.parent / "data"
    ignored = shutil.ignore_patterns("__pycache__")
    for name in COPIED:
        shutil.copytree(PROJECT / name, folder / name, ignore=ignored)
    for path in PROJECT.glob("*.py"):
        shutil.copy(path, folder)
    draw_datasets(data)
    draw_images(folder)
    (folder / "configs" / "my.yaml").write_text(blocks("yaml")[0])
    for path in (folder / "configs").glob("*.yaml"):
        shrink(path, data)
    measure_briefly(folder / "utils" / "compare" / "trials" / "latency.py")
    (folder / "placements.yaml").write_text(
        "plain: {}\nse at feat1: {phi: se, attention.at: [feat1]}"
    )
    (folder / "my_package").mkdir()
    (folder / "my_package" / "blocks.py").write_text(
        "from torch import nn\n\n\nclass MyBlock(nn.Module):\n"
        "    def __init__(self, channels):\n        super().__init__()\n\n"
        "    def forward(self, x):\n        return x\n"
    )
    return folder


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}


def run(project: Path, line: str) -> subprocess.CompletedProcess[str]:
    """Type a command."""
    line = line.replace("/data/", f"{project.parent / 'data'}/")
    line = line.replace("rtsp://camera/stream", "drive.mp4").replace("epochs=50", "epochs=4")
    line = line.replace("--nproc_per_node 4", "--nproc_per_node 2")
    words = shlex.split(line)
    if words[0] == "python":
        words[0] = sys.executable
    return subprocess.run(words, cwd=project, env=environment(), capture_output=True, text=True)


def interrupt_a_training(project: Path) -> None:
    """runs/neu_det: stopped before its last epoch."""
    run_folder = project / "runs" / "neu_det"
    shutil.rmtree(run_folder)
    words = [sys.executable, "train.py", "--config", "neu_det.yaml", "train.epochs=3"]
    with subprocess.Popen(
        words, cwd=project, env=environment(), stdout=subprocess.DEVNULL
    ) as train:
        while not (run_folder / "last.pt").exists():
            assert train.poll() is None
            time.sleep(0.01)
        train.send_signal(signal.SIGTERM)
    assert train.returncode == 128 + signal.SIGTERM


def make_newest(project: Path) -> None:
    """The network of one's own data is the newest, and knows bolts."""
    os.utime(project / "runs" / "my" / "best.pt")


PREPARED: dict[str, Callable[[Path], None]] = {
    "python train.py --resume runs/neu_det": interrupt_a_training,
    "python predict.py --mode heatmap --source street.jpg": make_newest,
}


@pytest.fixture(scope="module")
def camera(project: Path) -> Iterator[str]:
    """An address that a video comes from, made by an earlier command: its index is at the start."""
    handler = partial(SimpleHTTPRequestHandler, directory=project)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/detections.mp4"
        server.shutdown()


@pytest.fixture(scope="module")
def page(project: Path) -> Iterator[None]:
    """`python demo.py` runs, as it does in another terminal."""
    line = next(line for line in commands() if line.startswith("python demo.py"))
    words = [sys.executable, *shlex.split(line)[1:]]
    with subprocess.Popen(words, cwd=project, env=environment(), stdout=subprocess.DEVNULL) as demo:
        while not _answers("http://127.0.0.1:7860"):
            assert demo.poll() is None
            time.sleep(0.2)
        yield
        demo.terminate()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address):
            return True
    except urllib.error.URLError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("line", commands())
def test_a_command_of_the_readme(line: str, project: Path, request: pytest.FixtureRequest):
    if line.startswith(("python demo.py", "curl")):
        pytest.importorskip("gradio", reason="needs gradio")
        request.getfixturevalue("page")
        line = line.replace("python demo.py", "python demo.py --help")
    if CAMERA in line:
        line = line.replace(CAMERA, request.getfixturevalue("camera"))
    if line in PREPARED:
        PREPARED[line](project)
    added = next((words for start, words in ADDED.items() if line.startswith(start)), "")
    done = run(project, f"{line} {added}")
    assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@pytest.mark.slow
def test_the_python_of_the_readme(project: Path):
    (code,) = blocks("python")
    done = run(project, shlex.join(["python", "-c", code]))
    assert done.returncode == 0, done.stderr


def test_the_readme_names_files_that_exist():
    for name in re.findall(r"requirements[\w-]*\.txt|(?<=\()docs/\w+\.\w+", README):
        assert (PROJECT / name).is_file(), name
    assert len(list(PROJECT.glob("requirements*.txt"))) <= 5
