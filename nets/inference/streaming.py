"""Detection in a sequence of images, such as a video's frames, as fast as the CPU allows."""

import copy
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TypeVar

import numpy as np
import torch

from nets.inference.detections import Detections
from nets.inference.detector import Detector

MAX_WORKERS = 4  # Python code runs in one thread at a time: more workers gain nothing

Item = TypeVar("Item")
Result = TypeVar("Result")
Predict = Callable[[np.ndarray], Detections]
Submit = Callable[[np.ndarray], Future[Detections]]


def detect_stream(detector: Predict, frames: Iterable[np.ndarray]) -> Iterator[Detections]:
    """Yield the detections of each frame, in order, with a delay of a few frames.

    With PyTorch on a CPU, several frames are processed at once, each by a share of the threads. On
    two cores this gives a third more frames per second than both threads working on the same frame
    and waiting for each other after every layer. OpenVINO and ONNX Runtime lose less time in this
    way, and a GPU none, so they process one frame at a time.

    Args:
        detector: a `Detector`, or any function from a frame to `Detections`, which is called for
            one frame at a time.
        frames: RGB uint8 `(h, w, 3)`, read in the calling thread. If reading a frame fails, the
            error is raised after the detections of all earlier frames.
    """
    threads = torch.get_num_threads()
    workers = min(threads, MAX_WORKERS)
    if workers > 1 and isinstance(detector, Detector) and _runs_in_threads(detector):
        with _worker_pool(detector, workers, threads) as submit:
            yield from in_order(submit, frames, workers)
    else:
        yield from map(detector, frames)


def _runs_in_threads(detector: Detector) -> bool:
    """Whether it is eager PyTorch on a CPU, where each worker can set its number of threads."""
    eager_on_cpu = detector.backend.name == "torch" and detector.device.type == "cpu"
    return eager_on_cpu and torch.backends.openmp.is_available()


@contextmanager
def _worker_pool(detector: Detector, workers: int, threads: int) -> Iterator[Submit]:
    """Yield a function that submits a frame; each worker has a copy of the detector."""
    idle: SimpleQueue[Detector] = SimpleQueue()  # copies, since a block may keep its last input
    for _ in range(workers):
        worker = copy.copy(detector)
        worker.backend = copy.deepcopy(detector.backend)
        idle.put(worker)

    def detect(frame: np.ndarray) -> Detections:
        worker = idle.get()
        try:
            return worker(frame)
        finally:
            idle.put(worker)

    pool = ThreadPoolExecutor(workers, "detect", torch.set_num_threads, (threads // workers,))
    try:
        yield lambda frame: pool.submit(detect, frame)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # for threads started later


def with_detections(
    predict: Callable[[Iterator[np.ndarray]], Iterable[Detections]],
    items: Iterable[Item],
    image_of: Callable[[Item], np.ndarray],
) -> Generator[tuple[Item, Detections], None, None]:
    """Yield each item with its detections.

    Args:
        predict: maps images to their detections, in order; it may read images ahead.
        items: read in the calling thread.
        image_of: the image of an item, RGB uint8 `(h, w, 3)`.
    """
    waiting: deque[Item] = deque()

    def images() -> Iterator[np.ndarray]:
        for item in items:
            waiting.append(item)
            yield image_of(item)

    for detections in predict(images()):
        yield waiting.popleft(), detections


def in_order(
    submit: Callable[[Item], Future[Result]], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """Yield results in the order of the items, with up to `workers` + 1 items in progress.

    Args:
        submit: starts the work on an item in another thread.
        items: read in the calling thread. If reading one fails, the error is raised after the
            results of all earlier ones.
        workers: number of those threads.
    """
    pending: deque[Future[Result]] = deque()
    failure: Exception | None = None
    iterator = iter(items)
    while True:
        try:
            pending.append(submit(next(iterator)))
        except StopIteration:
            break
        except Exception as error:
            failure = error
            break
        if len(pending) > workers:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
    if failure:
        raise failure
