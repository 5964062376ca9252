"""How fast a model is: the latency of one image, as `predict.py --mode fps` reports it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from utils.core.timing import Budget, interleave, timed
from utils.engine.prediction import Model


@dataclass(frozen=True)
class Speed:
    """Latency on one image after warm-up; `str()` is the report.

    Attributes:
        runs: how often it was measured. median, low, high: ms an image, end to end (letterbox, network, NMS), and its
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
        """Images a second at the median latency."""
        return 1000 / self.median

    def __str__(self) -> str:
        height, width = self.input_size
        spread = f"median {self.median:.2f} ms (5 to 95 %: {self.low:.2f} to {self.high:.2f} ms, {self.runs} runs)"
        lines = [
            f"end to end at {width}x{height}, batch 1{self.how}: {self.fps:.1f} pictures/s, {spread}"
        ]
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
    clocks = {"whole": timed(lambda: model(image))}
    if backend is not None:
        clocks["network"] = timed(
            lambda: [part.cpu() for part in backend(canvas)]
        )  # waits for a GPU
    times = interleave(clocks, Budget(seconds))
    whole, network = times["whole"], times.get("network")
    low, median, high = np.percentile(whole, (5, 50, 95))
    alone = None if network is None else float(np.median(network))
    overhead = None if network is None else float(np.median(whole / network) - 1)
    how = "" if backend is None else ", ".join(["", *_traits(backend)])
    return Speed(
        len(whole), float(median), float(low), float(high), alone, overhead, model.input_size, how
    )


def _traits(backend: Any) -> list[str]:
    return [
        value
        for value in (getattr(backend, "name", ""), getattr(backend, "precision", ""))
        if value
    ]
