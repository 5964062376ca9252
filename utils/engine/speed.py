"""How fast a model is: the latency of one picture, as `predict.py --mode fps` reports it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from utils.engine.predicting import Model


@dataclass(frozen=True)
class Speed:
    """Latency on one picture after warm-up; `str()` is the report.

    Attributes:
        runs: how often it was measured. median, low, high: ms a picture, end to end (letterbox, network, NMS), and its
            5th and 95th percentiles. network: median ms of the network alone, none when the model does not offer it.
        input_size: (height, width) of the network's input, pixels.
    """

    runs: int
    median: float
    low: float
    high: float
    network: float | None
    input_size: tuple[int, int]

    @property
    def fps(self) -> float:
        """Pictures a second at the median latency."""
        return 1000 / self.median

    def __str__(self) -> str:
        height, width = self.input_size
        spread = f"median {self.median:.2f} ms (5 to 95 %: {self.low:.2f} to {self.high:.2f} ms, {self.runs} runs)"
        alone = "" if self.network is None else f"\nnetwork alone: {1000 / self.network:.1f}/s, {self.network:.2f} ms"
        return f"end to end at {width}x{height}, batch 1: {self.fps:.1f} pictures/s, {spread}{alone}"


def measure_fps(model: Model, image: np.ndarray, seconds: float = 10.0) -> Speed:
    """Time `model(image)` for `seconds` after a fifth of that as warm-up; at least three runs each.

    Args:
        image: RGB uint8 `(h, w, 3)`. The result's arrays lie in main memory, so a GPU's work is included.
    """
    times = _time(lambda: model(image), seconds, "end to end")
    low, median, high = np.percentile(times, (5, 50, 95))
    alone, network = None, getattr(model, "raw_maps", None)
    if network is not None:
        canvas = torch.zeros(1, *model.input_size, 3, dtype=torch.uint8)
        with torch.inference_mode():
            alone = float(np.median(_time(lambda: _finish(network(canvas)), seconds / 2, "network")))
    return Speed(len(times), float(median), float(low), float(high), alone, model.input_size)


def _finish(maps: list[torch.Tensor]) -> None:
    """Wait for a GPU, which computes on while Python goes on."""
    if maps[0].is_cuda:
        torch.cuda.synchronize(maps[0].device)
    elif maps[0].device.type == "mps":
        torch.mps.synchronize()


def _time(run: Callable[[], Any], seconds: float, what: str) -> list[float]:
    """Milliseconds of each run."""
    times: list[float] = []
    for duration in (seconds / 5, seconds):
        times.clear()  # the first round is the warm-up
        with tqdm(total=round(duration, 1), desc=what, unit="s", leave=False, disable=None) as bar:
            end = time.perf_counter() + duration
            while len(times) < 3 or time.perf_counter() < end:
                start = time.perf_counter()
                run()
                times.append(1000 * (time.perf_counter() - start))
                bar.update(times[-1] / 1000)
    return times
