"""What the code asks of the operating system: a training and a prediction without what Linux adds.

Windows and macOS themselves are tried by users only; docs/platforms.md says what is known.
"""

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
WORDS = (
    "device=cpu precision=fp32 input_size=64 data.shapes_train=8 data.shapes_val=8 train.epochs=1"
)
# Libraries are imported first: what they do on other systems is their own affair.
COMMANDS = """
import getpass, multiprocessing, os, pathlib, signal, sys, tarfile, warnings
import cv2, filelock, matplotlib.pyplot, pycocotools.cocoeval, torch, torchvision

for name in ("fork", "getloadavg", "getpgid", "getuid", "geteuid", "killpg", "memfd_create",
             "mkfifo", "pread", "pwrite", "sched_getaffinity", "setsid", "statvfs", "uname"):
    delattr(os, name)
for name in ("SIGALRM", "SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "setitimer"):
    delattr(signal, name)
sys.modules.update(dict.fromkeys(("fcntl", "grp", "pwd", "resource", "termios")))
multiprocessing.set_start_method("spawn")

open_path = pathlib.Path.open
def open_without_proc(path, *args, **options):
    if str(path).startswith(("/proc/", "/sys/")):
        raise FileNotFoundError(path)
    return open_path(path, *args, **options)
pathlib.Path.open = open_without_proc
warnings.filterwarnings("error", category=EncodingWarning, module=r"(nets|utils)\\b")

from utils.core.cli import run_command
from utils.core.config import load_config
from utils.core.environment import describe_device
from utils.core.memory import available_memory
from utils.engine.experiment import train
from utils.engine.prediction import PredictOptions, predict

def commands():
    cpu = torch.device("cpu")
    print(describe_device(cpu), available_memory(cpu))
    train(load_config("shapes.yaml", sys.argv[1:]))
    print(predict(PredictOptions(json="detections.json", precision="auto")))

run_command(commands)
"""


@pytest.mark.slow
def test_a_run_needs_nothing_that_only_some_systems_have(tmp_path: Path):
    script = [sys.executable, "-X", "warn_default_encoding", "-c", COMMANDS]
    environment = {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*script, *WORDS.split()], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "detections.json").is_file() and "8 images" in done.stdout
