"""Detection in a sequence of images, such as a video's frames, as fast as the CPU allows."""

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue

import numpy as np
import torch

from nets.inference.detections import Detections
from nets.inference.detector import Detector

MAX_WORKERS = 4  # Python itself runs for one frame at a time: more threads gain nothing

Predict = Callable[[np.ndarray], Detections]
Submit = Callable[[np.ndarray], Future[Detections]]


def detect_stream(detector: Predict, frames: Iterable[np.ndarray]) -> Iterator[Detections]:
    """Yield the detections of each frame, in order, a few frames behind.

    With PyTorch on a CPU several frames are computed at once, each on its share of the threads: on
    two cores a third more frames per second than with both threads on each frame, where one waits
    for the other after every layer. OpenVINO and ONNX Runtime lose less by that, and a GPU nothing:
    these take frame by frame.

    Args:
        detector: a `Detector`, or any other function of a frame, which is called frame by frame.
        frames: RGB uint8 `(h, w, 3)`, taken in the calling thread. An error in taking one is raised
            after the detections of those before it.
    """
    threads = torch.get_num_threads()
    workers = min(threads, MAX_WORKERS)
    if workers > 1 and isinstance(detector, Detector) and _runs_in_threads(detector):
        with _worker_pool(detector, workers, threads) as submit:
            yield from _in_order(submit, frames, workers)
    else:
        yield from map(detector, frames)


def _runs_in_threads(detector: Detector) -> bool:
    """PyTorch's own kernels on a CPU, where each thread can be given its number of threads."""
    eager_on_cpu = detector.backend.name == "torch" and detector.device.type == "cpu"
    return eager_on_cpu and torch.backends.openmp.is_available()


@contextmanager
def _worker_pool(detector: Detector, workers: int, threads: int) -> Iterator[Submit]:
    """Submits frames to threads, each with its own detector: a block may keep its last input."""
    idle: SimpleQueue[Detector] = SimpleQueue()
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
        torch.set_num_threads(threads)  # for threads that are started later


def _in_order(submit: Submit, frames: Iterable[np.ndarray], workers: int) -> Iterator[Detections]:
    """Results in the order of the frames; one more than there are workers are under way."""
    pending: deque[Future[Detections]] = deque()
    failure: Exception | None = None
    iterator = iter(frames)
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
