"""A sequence of images, such as a video's frames, as fast as the CPU allows."""

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

MOST = 4  # frames at once: Python itself runs for one of them at a time

Predict = Callable[[np.ndarray], Detections]


def stream(detector: Predict, frames: Iterable[np.ndarray]) -> Iterator[Detections]:
    """The detections of each frame, in order, a few frames behind.

    With PyTorch on a CPU several frames are computed at once, each on its share of the threads: a third more
    frames a second on two cores than with both threads on each frame, where one waits for the other after every layer.
    OpenVINO and ONNX Runtime lose less by that, and a GPU nothing: with these it is frame by frame.

    Args:
        detector: a `Detector`, or anything else that takes a frame: then frame by frame.
        frames: RGB uint8 `(h, w, 3)`, taken in the calling thread. An error in taking one is raised after the
            detections of those before it.
    """
    threads = torch.get_num_threads()
    workers = min(threads, MOST)
    if workers > 1 and isinstance(detector, Detector) and _divisible(detector):
        with _pool(detector, workers, threads) as submit:
            yield from _in_order(submit, frames, workers)
    else:
        yield from map(detector, frames)


def _divisible(detector: Detector) -> bool:
    """PyTorch's own kernels on a CPU, where each thread can be given its number of threads."""
    alone = detector.backend.name == "torch" and detector.device.type == "cpu"
    return alone and torch.backends.openmp.is_available()


@contextmanager
def _pool(
    detector: Detector, workers: int, threads: int
) -> Iterator[Callable[[np.ndarray], Future[Detections]]]:
    """Submits frames to `workers` threads; each has a detector of its own, as a block may keep what it saw last."""
    free: SimpleQueue[Detector] = SimpleQueue()
    for _ in range(workers):
        own = copy.copy(detector)
        own.backend = copy.deepcopy(detector.backend)
        free.put(own)

    def detect(frame: np.ndarray) -> Detections:
        taken = free.get()
        try:
            return taken(frame)
        finally:
            free.put(taken)

    pool = ThreadPoolExecutor(workers, "detect", torch.set_num_threads, (threads // workers,))
    try:
        yield lambda frame: pool.submit(detect, frame)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # the number that threads to come start with


def _in_order(
    submit: Callable[[np.ndarray], Future[Detections]], frames: Iterable[np.ndarray], workers: int
) -> Iterator[Detections]:
    """Results in the order of the frames; one more than there are workers are on their way."""
    pending: deque[Future[Detections]] = deque()
    source, failure = iter(frames), None
    while True:
        try:
            pending.append(submit(next(source)))
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
