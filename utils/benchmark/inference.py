"""One image at a time: every backend and precision beside the naive network, and what surrounds the network."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from nets.inference.backends import BACKENDS
from nets.inference.detector import Detector
from nets.loading import load_model
from utils.benchmark.bench import Bench
from utils.benchmark.rows import Row, Section, Target, per_second, ratio_of
from utils.core.devices import pick_precision
from utils.core.errors import UserError
from utils.core.timing import Clock, Stat, block_timed, interleave

OVERHEAD = 15.0  # percent that letterbox and NMS may add to the network
WHOLE = "whole"  # before a clock's name: from an image to detections
COMPILING = 240.0  # seconds that a compiler may take

Times = dict[str, np.ndarray]


def section(bench: Bench) -> Section:
    """Measure."""
    clocks: dict[str, Clock] = {"naive": bench.naive(training=False).clock("detect")}
    notes = [
        f"batch 1 at {bench.config.input_size[1]}x{bench.config.input_size[0]}, network and decoding of its maps, "
        "from a uint8 canvas to boxes in main memory"
    ]
    for name, precision in wanted(bench):
        try:
            clocks |= _clocks(bench, name, precision)
        except UserError as error:
            notes.append(f"{name} {precision} left out: {error}")
    for precision in dict.fromkeys(["fp32", bench.precision]):
        product = bench.peak(precision)
        if product is not None:
            clocks[f"peak {precision}"] = product.clock
    network, whole, how = _configured(bench)
    clocks |= {"end to end": whole, "its network": network}
    times = interleave(clocks, bench.settings.effort, "inference")
    rows = [Row("inference.naive", "naive, fp32", per_second(times["naive"]), "pictures/s")]
    rows += [_row(bench, name, times) for name in clocks if name.split()[0] in BACKENDS]
    rows += [_whole_row(name, times) for name in clocks if name.startswith(WHOLE)]
    return Section("inference", "images a second", [*rows, *_end_to_end(how, times)], notes)


def wanted(bench: Bench) -> list[tuple[str, str]]:
    """Backends and precisions worth a try on this device; bf16 only where it is not emulated."""
    native = pick_precision("auto", bench.device)
    pairs = [(name, precision) for name, some in BACKENDS.items() for precision in some]
    if bench.settings.quick:
        pairs = [pair for pair in pairs if pair[0] != "compile" and pair[1] != "int8"]
    on_gpu = bench.device.type != "cpu"
    return [
        (name, precision)
        for name, precision in pairs
        if (precision != "bf16" or native == "bf16") and (precision != "fp16" or on_gpu)
    ]


def _clocks(bench: Bench, name: str, precision: str) -> dict[str, Clock]:
    """Of a backend in a precision: its network, and from an image to detections."""
    how = f"{name} {precision}"
    if name == "compile":  # a compiler that hangs can be ended there
        canvas = bench.folder / "canvas.pt"
        remote = bench.remote(
            compiled_clock, bench.weights, canvas, precision, bench.block, timeout=COMPILING
        )
        return {how: remote.clock("detect")}
    detector = bench.detector(name, precision)
    network, whole = _pair(detector, bench)
    return {how: network, f"{WHOLE} {how}": whole}


def compiled_clock(
    weights: Path, canvas: Path, precision: str, block: float
) -> Mapping[str, Clock]:
    """`detect` with the backend `compile`, for a process of its own."""
    detector = load_model(weights, backend="compile", precision=precision)
    return {"detect": backend_clock(detector, torch.load(canvas, weights_only=True), block)}


def backend_clock(detector: Detector, canvas: torch.Tensor, block: float) -> Clock:
    """From a canvas to boxes and scores in main memory."""
    return block_timed(lambda: [part.cpu() for part in detector.backend(canvas)], block)


def _pair(detector: Detector, bench: Bench) -> tuple[Clock, Clock]:
    """Of the network alone, and from an image to detections."""
    return backend_clock(detector, bench.canvas, bench.block), block_timed(
        lambda: detector(bench.photo), bench.block
    )


def _configured(bench: Bench) -> tuple[Clock, Clock, str]:
    """The pair of the configuration's backend, and which that is."""
    name = bench.config.backend
    detector = bench.detector("torch" if name == "auto" else name, bench.config.precision)
    return *_pair(detector, bench), f"{detector.backend_name} {detector.precision}"


def _row(bench: Bench, name: str, times: Times) -> Row:
    backend, precision = name.split()
    product = None if precision == "int8" else times.get(f"peak {precision}")
    rate, ratio = per_second(times[name]), ratio_of(times["naive"], times[name])
    reached = bench.reached(precision, bench.gflops, times[name], product)
    return Row(
        f"inference.{backend}.{precision}",
        f"{backend}, {precision}",
        rate,
        "pictures/s",
        ratio,
        "naive",
        *reached,
    )


def _whole_row(name: str, times: Times) -> Row:
    how = name.removeprefix(f"{WHOLE} ")
    rate, ratio = per_second(times[name]), ratio_of(times[how], times[name])
    key = f"inference.end_to_end.{how.replace(' ', '.')}"
    return Row(key, f"image to detections, {how}", rate, "pictures/s", ratio, "its network")


def _end_to_end(how: str, times: Times) -> list[Row]:
    added = Stat.of(100 * (times["end to end"] / times["its network"] - 1))
    target = Target(OVERHEAD, at_least=False)
    return [
        Row(
            "inference.end_to_end",
            f"image to detections, {how}",
            per_second(times["end to end"]),
            "pictures/s",
            ratio_of(times["naive"], times["end to end"]),
            "naive",
        ),
        Row("inference.overhead", "letterbox and NMS, over the network", added, "%", target=target),
    ]
