"""How fast a detector is: the latency of one image, as `predict.py --mode fps` reports it."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nets.inference.detector import Detector
from utils.core.timing import Budget, interleave, timed


@dataclass(frozen=True)
class Speed:
    """Latency on one image after warm-up; `str()` is the report.

    Attributes:
        runs: number of measurements.
        median: ms per image, end to end (letterbox, network, NMS).
        low: 5th percentile of the end-to-end latency, ms.
        high: 95th percentile of the end-to-end latency, ms.
        network: median ms of the network and its decoding alone.
        overhead: median of (end to end / network - 1), each pair measured back to back; >= 0.
        input_size: (height, width) of the network's input, pixels.
        backend: name of the backend and precision.
    """

    runs: int
    median: float
    low: float
    high: float
    network: float
    overhead: float
    input_size: tuple[int, int]
    backend: str

    @property
    def fps(self) -> float:
        """Images per second at the median latency."""
        return 1000 / self.median

    def __str__(self) -> str:
        height, width = self.input_size
        return (
            f"end to end at {width}x{height}, batch 1, {self.backend}: {self.fps:.1f} images/s, "
            f"median {self.median:.2f} ms "
            f"(5 to 95%: {self.low:.2f} to {self.high:.2f} ms, {self.runs} runs)\n"
            f"network alone: {1000 / self.network:.1f}/s, {self.network:.2f} ms; "
            f"letterbox and NMS add {100 * self.overhead:.0f}%"
        )


def measure_fps(detector: Detector, image: np.ndarray, seconds: float = 10.0) -> Speed:
    """Time the detector and, interleaved with it, its network alone.

    Args:
        detector: the detector; its results are in main memory, so a GPU's work is included.
        image: RGB uint8 `(h, w, 3)`.
        seconds: how long to measure, after a fifth of that as warm-up.
    """
    canvas = torch.full((1, *detector.input_size, 3), 114, dtype=torch.uint8)

    def run_network() -> list[Tensor]:
        return [output.cpu() for output in detector.backend(canvas)]  # waits for a GPU

    times = interleave(
        {"whole": timed(lambda: detector(image)), "network": timed(run_network)}, Budget(seconds)
    )
    whole, network = times["whole"], times["network"]
    low, median, high = np.percentile(whole, (5, 50, 95))
    return Speed(
        runs=len(whole),
        median=float(median),
        low=float(low),
        high=float(high),
        network=float(np.median(network)),
        overhead=float(np.median(whole / network) - 1),
        input_size=detector.input_size,
        backend=f"{detector.backend.name}, {detector.backend.precision}",
    )
