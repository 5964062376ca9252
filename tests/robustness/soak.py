"""Long runs: memory, threads and open files must not grow.

    python -m tests.robustness.soak [--epochs 200] [--predictions 10000] [--frames 10000]

A training, predictions by one detector, the same through a folder of images, and a video: each in
a process of its own that is sampled while it runs. The first half is the warm-up. After it, a line
is fitted to the memory; threads and files are the most of the last quarter beyond the most of the
third. The exit code is 1 if one of them grows by more than `TOLERANCES`.
"""

import argparse
import contextlib
import io
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nets.inference.detector import Detector
from nets.yolo.yolov4_tiny import YOLOv4Tiny
from tests.dataset_files import make_image
from utils.core.config import load_config
from utils.core.process import configure_process
from utils.engine.experiment import train
from utils.engine.image_prediction import predict_images
from utils.engine.sources import image_folder
from utils.engine.video_prediction import predict_video
from utils.visualization.video import VideoSink

INTERVAL = 0.05  # seconds between samples
TINY = {
    "device": "cpu",
    "precision": "fp32",
    "backend": "torch",
    "threads": 1,
    "input_size": 64,
    "data.shapes_train": 16,
    "data.shapes_val": 8,
    "train.batch_size": 4,
    "predict.score": 0.01,
}


class Usage(NamedTuple):
    """What a process uses at a moment; or by how much that grows."""

    memory: float  # MiB
    threads: float
    files: float


TOLERANCES = Usage(memory=16, threads=2, files=2)
Task = Callable[[], object]


def usage() -> Usage:
    """Of this process (Linux only)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    threads, files = (len(os.listdir(f"/proc/self/{name}")) for name in ("task", "fd"))  # noqa: PTH208
    return Usage(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, threads, files)


def sampled(task: Task) -> list[Usage]:
    """Run a task, and sample this process meanwhile."""
    samples: list[Usage] = []
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(INTERVAL):
            samples.append(usage())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            task()
    finally:
        ended.set()
        thread.join()
    return samples


def in_own_process(task: Task) -> list[Usage]:
    """`sampled(task)` in a new process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(sampled, task).result()


def growth(samples: list[Usage]) -> Usage:
    """By how much each number grows in the second half."""
    quarter = len(samples) // 4
    memory = np.array([sample.memory for sample in samples[2 * quarter :]])
    slope = float(np.polyfit(np.arange(len(memory)), memory, 1)[0])

    def most(index: int, part: list[Usage]) -> float:
        return max(sample[index] for sample in part)

    third, last = samples[2 * quarter : 3 * quarter], samples[-quarter:]
    threads, files = (most(index, last) - most(index, third) for index in (1, 2))
    return Usage(slope * len(memory), threads, files)


def grows(change: Usage) -> bool:
    return any(value > limit for value, limit in zip(change, TOLERANCES, strict=True))


# tasks


def _image(index: int) -> np.ndarray:
    """Noise of one of many sizes."""
    return np.asarray(make_image((40 + index % 97, 30 + index % 61), index % 50))


def _detector() -> Detector:
    config = load_config("shapes.yaml", TINY)
    configure_process(config.threads)
    return Detector(YOLOv4Tiny(3).eval(), config, ("circle", "square", "star"))


def train_epochs(count: int) -> None:
    """Train with 20 evaluations, after a first epoch that loads what a run needs, to its plots."""
    with tempfile.TemporaryDirectory() as folder:
        for epochs in (1, count):
            changes = {"train.epochs": epochs, "train.eval_every": max(1, epochs // 20)}
            train(load_config("shapes.yaml", {**TINY, **changes, "output": folder}))


def predict_arrays(count: int) -> None:
    """Call a detector."""
    detector = _detector()
    for index in range(count):
        detector(_image(index))


def predict_folder(count: int) -> None:
    """Predict on the images of a folder, again and again."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "images"
        source.mkdir()
        for index in range(100):
            make_image((40 + index, 30 + index // 2), index).save(source / f"{index}.png")
        images = image_folder(str(source)) * -(-count // 100)
        predict_images(_detector(), images[:count], Path(folder) / "out")


def predict_frames(count: int) -> None:
    """Predict on a video."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in.mp4"
        with VideoSink(path, 25, (96, 64)) as sink:
            for index in range(count):
                sink.write(np.asarray(make_image((96, 64), index % 50)))
        predict_video(_detector(), path, Path(folder) / "out.mp4")


def run(tasks: Mapping[str, Task]) -> bool:
    """Run tasks and print a table; whether nothing grows."""
    print(f"{'task':<22}{'seconds':>9}{'memory, MiB':>16}{'threads':>14}{'open files':>14}")
    good = True
    for name, task in tasks.items():
        start = time.monotonic()
        samples = in_own_process(task)
        change, end = growth(samples), samples[-1]
        cells = [
            f"{end.memory:.0f} {change.memory:+.1f}",
            f"{end.threads} {change.threads:+}",
            f"{end.files} {change.files:+}",
        ]
        verdict = "  GROWS" if grows(change) else ""
        seconds = time.monotonic() - start
        print(f"{name:<22}{seconds:>9.0f}{cells[0]:>16}{cells[1]:>14}{cells[2]:>14}{verdict}")
        good = good and not verdict
    print(f"at the end, and growth in the second half; tolerances: {tuple(TOLERANCES)}")
    return good


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.robustness.soak")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--predictions", type=int, default=10_000)
    parser.add_argument("--frames", type=int, default=10_000)
    args = parser.parse_args()
    tasks = {
        f"{args.epochs} epochs": partial(train_epochs, args.epochs),
        f"{args.predictions} predictions": partial(predict_arrays, args.predictions),
        f"{args.predictions} files": partial(predict_folder, args.predictions),
        f"{args.frames} frames": partial(predict_frames, args.frames),
    }
    return 0 if run(tasks) else 1


if __name__ == "__main__":
    sys.exit(main())
