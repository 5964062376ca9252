"""Batch 1: every backend and precision against the baseline, and end to end."""

from pathlib import Path

import numpy as np
import torch

from nets.inference.backends import BACKENDS
from nets.inference.detector import Detector
from nets.loading import load_model
from utils.benchmark.results import Case, Measurement, ResultTable, Target
from utils.benchmark.session import BenchmarkSession
from utils.core.devices import pick_precision
from utils.core.errors import UserError
from utils.core.timing import Clock, Stat, block_timed

OVERHEAD_TARGET = 15.0  # percent that letterbox and NMS may add to the network
COMPILE_TIMEOUT = 240.0  # seconds


def inference_table(session: BenchmarkSession) -> ResultTable:
    """Measure."""
    height, width = session.config.input_size
    notes = [
        f"batch 1 at {width}x{height}, network and decoding of its maps, from a uint8 canvas to "
        "boxes in main memory"
    ]
    networks = [
        Case("baseline", "baseline, fp32", session.baseline(training=False).clock("detect"))
    ]
    end_to_end: list[Case] = []
    for backend, precision in backends_to_try(session):
        try:
            network, *whole = _backend_cases(session, backend, precision)
        except UserError as error:
            notes.append(f"{backend} {precision} left out: {error}")
        else:
            networks.append(network)
            end_to_end += whole
    rows, times = session.measure(
        "inference", [*networks, *end_to_end, *_configured_cases(session)]
    )
    ratio = times["end_to_end"] / times["network"]
    added = Stat.of(100 * (ratio - 1))
    target = Target(OVERHEAD_TARGET, at_least=False)
    what = "letterbox and NMS, relative to the network"
    overhead = Measurement("overhead", what, "%", added, target=target)
    return ResultTable("inference", "images per second", [*rows, overhead], notes)


def backends_to_try(session: BenchmarkSession) -> list[tuple[str, str]]:
    """Backends and precisions for the device: bf16 where it is native, fp16 on a GPU."""
    left_out = set()
    if pick_precision("auto", session.device) != "bf16":
        left_out.add("bf16")
    if session.device.type == "cpu":
        left_out.add("fp16")
    if session.options.quick:
        left_out |= {"compile", "int8"}
    pairs = [(backend, precision) for backend in BACKENDS for precision in BACKENDS[backend]]
    return [pair for pair in pairs if not left_out.intersection(pair)]


def compiled_clock(
    weights: Path, canvas: np.ndarray, precision: str, block: float
) -> dict[str, Clock]:
    """The clock `detect` with the backend `compile`, for a separate process."""
    detector = load_model(weights, backend="compile", precision=precision)
    return {"detect": network_clock(detector, torch.from_numpy(canvas), block)}


def network_clock(detector: Detector, canvas: torch.Tensor, block: float) -> Clock:
    """From a canvas to boxes and scores in main memory."""
    return block_timed(lambda: [part.cpu() for part in detector.backend(canvas)], block)


def _backend_cases(session: BenchmarkSession, backend: str, precision: str) -> list[Case]:
    """The network, and image to detections except with `compile`."""
    key, what = f"{backend}.{precision}", f"{backend}, {precision}"
    end_to_end = []
    if backend == "compile":  # in a process, which can be ended if the compiler hangs
        arguments = (session.weights, session.canvas.numpy(), precision, session.block)
        process = session.start_process(compiled_clock, *arguments, timeout=COMPILE_TIMEOUT)
        clock = process.clock("detect")
    else:
        clock, whole = _detector_clocks(session, session.detector(backend, precision))
        label = f"image to detections, {backend} {precision}"
        end_to_end.append(Case(f"end_to_end.{key}", label, whole, over=key))
    gflop = session.gflops
    network = Case(key, what, clock, over="baseline", gflop=gflop, precision=precision)
    return [network, *end_to_end]


def _configured_cases(session: BenchmarkSession) -> list[Case]:
    """The network, and image to detections, with the configuration's backend."""
    backend = "torch" if session.config.backend == "auto" else session.config.backend
    detector = session.detector(backend, session.config.precision)
    network, whole = _detector_clocks(session, detector)
    what = f"image to detections, {detector.backend_name} {detector.precision}"
    return [Case("network", "", network), Case("end_to_end", what, whole, over="baseline")]


def _detector_clocks(session: BenchmarkSession, detector: Detector) -> tuple[Clock, Clock]:
    """The clocks of the network, and from an image to detections."""
    whole = block_timed(lambda: detector(session.image), session.block)
    return network_clock(detector, session.canvas, session.block), whole
