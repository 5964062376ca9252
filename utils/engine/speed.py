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
            5th and 95th percentiles. network: median ms of the network and its decoding alone, none when the model
            does not offer it. overhead: median of what a run takes end to end over the network's run beside it, 0..
        input_size: (height, width) of the network's input, pixels. how: backend and precision, if known.
    """

    runs: int
    median: float
    low: float
    high: float
    network: float | None
    overhead: float | None
    input_size: tuple[int, int]
    how: str = ""

    @property
    def fps(self) -> float:
        """Pictures a second at the median latency."""
        return 1000 / self.median

    def __str__(self) -> str:
        height, width = self.input_size
        spread = f"median {self.median:.2f} ms (5 to 95 %: {self.low:.2f} to {self.high:.2f} ms, {self.runs} runs)"
        lines = [f"end to end at {width}x{height}, batch 1{self.how}: {self.fps:.1f} pictures/s, {spread}"]
        if self.network is not None and self.overhead is not None:
            alone = f"network alone: {1000 / self.network:.1f}/s, {self.network:.2f} ms"
            lines.append(f"{alone}; letterbox and NMS add {100 * self.overhead:.0f} %")
        return "\n".join(lines)


def measure_fps(model: Model, image: np.ndarray, seconds: float = 10.0) -> Speed:
    """Time `model(image)`, and the network alone in turns with it, for `seconds` after a fifth of that as warm-up.

    Args:
        image: RGB uint8 `(h, w, 3)`. The result's arrays lie in main memory, so a GPU's work is included.
    """
    backend = getattr(model, "backend", None)
    canvas = torch.full((1, *model.input_size, 3), 114, dtype=torch.uint8)
    runs: list[Callable[[], Any]] = [lambda: model(image)]
    if backend is not None:
        runs.append(lambda: [part.cpu() for part in backend(canvas)])  # waits for a GPU
    times = _time_in_turns(runs, seconds)
    low, median, high = np.percentile(times[:, 0], (5, 50, 95))
    alone = None if backend is None else float(np.median(times[:, 1]))
    overhead = None if backend is None else float(np.median(times[:, 0] / times[:, 1]) - 1)
    how = "" if backend is None else ", ".join(["", *_traits(backend)])
    return Speed(len(times), float(median), float(low), float(high), alone, overhead, model.input_size, how)


def _traits(backend: Any) -> list[str]:
    return [value for value in (getattr(backend, "name", ""), getattr(backend, "precision", "")) if value]


def _time_in_turns(runs: list[Callable[[], Any]], seconds: float) -> np.ndarray:
    """Milliseconds `(rounds, len(runs))`; a slow moment of the machine hits all of them. At least three rounds."""
    rows: list[list[float]] = []
    for duration in (seconds / 5, seconds):
        rows.clear()  # the first is the warm-up
        with tqdm(total=round(duration, 1), desc="measuring", unit="s", leave=False, disable=None) as bar:
            end = time.perf_counter() + duration
            while len(rows) < 3 or time.perf_counter() < end:
                rows.append([_milliseconds(run) for run in runs])
                bar.update(sum(rows[-1]) / 1000)
    return np.array(rows)


def _milliseconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - start)
