"""Making a backend by name; `auto` measures those that work on this machine."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from tqdm import tqdm

from nets.inference.backends.base import (
    Backend,
    ModelSpec,
    choose_device,
    choose_precision,
)
from nets.inference.backends.litert_backend import LitertBackend
from nets.inference.backends.ncnn_backend import NcnnBackend
from nets.inference.backends.onnxruntime_backend import OnnxRuntimeBackend
from nets.inference.backends.openvino_backend import OpenVinoBackend
from nets.inference.backends.torch_backend import CompiledBackend, TorchBackend
from nets.io.formats import FORMATS
from utils.core.errors import UserError
from utils.core.timing import Budget, interleave, timed

MAKERS: dict[str, Callable[[ModelSpec, str, torch.device], Backend]] = {
    "torch": TorchBackend,
    "compile": CompiledBackend,
    "onnxruntime": OnnxRuntimeBackend,
    "openvino": OpenVinoBackend,
    "ncnn": NcnnBackend,
    "litert": LitertBackend,
}
ONE_IMAGE = ("ncnn", "litert")  # per call, in the files that they make for themselves
SECONDS = 1.0  # measuring time per backend


@dataclass
class Candidate:
    """A backend that works on this machine.

    Attributes:
        backend: the backend, warmed up.
        times: float64 `(n,)`, milliseconds per image.
    """

    backend: Backend
    times: np.ndarray

    def __str__(self) -> str:
        name, precision = self.backend.name, self.backend.precision
        low, middle, high = np.quantile(self.times, (0, 0.5, 1))
        return f"  {name:<12} {precision}  {middle:7.2f} ms per image ({low:.1f} to {high:.1f})"


def make_backend(name: str, spec: ModelSpec) -> Backend:
    """Make a backend.

    Args:
        name: one of `BACKENDS`, or "auto".
        spec: the model.

    Raises:
        UserError: its package is missing, or it does not support the device or the precision.
    """
    if name == "auto":
        return _fastest(spec)
    if name not in _candidates(spec):
        able = " or ".join(_candidates(spec))
        raise UserError(f"backend={name}: cannot run {spec.origin}; expected {able}")
    device = choose_device(name, spec.config.device)
    backend = MAKERS[name](spec, choose_precision(name, spec.config.precision, device), device)
    batch = spec.exported.batch if spec.exported else int(name in ONE_IMAGE)
    return FixedBatch(backend, batch) if batch else backend


def _candidates(spec: ModelSpec) -> Sequence[str]:
    """The backends that can run a model, if they are installed."""
    return FORMATS[spec.exported.path.suffix].backends if spec.exported else list(MAKERS)


class FixedBatch:
    """A backend that takes a fixed number of images per call, made to take any number.

    Args:
        backend: the backend.
        batch: number of images per call.
    """

    def __init__(self, backend: Backend, batch: int) -> None:
        self.name, self.precision = backend.name, backend.precision
        self.backend = backend
        self.batch = batch

    def __call__(self, canvases: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        missing = -len(canvases) % self.batch
        padded = torch.cat([canvases, canvases.new_zeros(missing, *canvases.shape[1:])])
        parts = [self.backend(part) for part in padded.split(self.batch)]
        boxes, scores = (torch.cat(part)[: len(canvases)] for part in zip(*parts, strict=True))
        return boxes, scores


def _fastest(spec: ModelSpec) -> Backend:
    """Return the fastest backend that works here; print the measured times to stderr."""
    height, width = spec.config.input_size
    canvas = torch.randint(0, 256, (1, height, width, 3), dtype=torch.uint8)
    backends: dict[str, Backend] = {}
    failures: dict[str, str] = {}
    for name in _candidates(spec):
        try:
            backends[name] = make_backend(name, spec)
            for _ in range(2):
                backends[name](canvas)  # compiles, fills caches
        except UserError as error:
            backends.pop(name, None)
            failures[name] = str(error)
    if not backends:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
        raise UserError(f"backend=auto: none works here: {reasons}")
    runs = {name: timed(partial(_run, backend, canvas)) for name, backend in backends.items()}
    times = interleave(runs, Budget(SECONDS * len(backends)))
    candidates = [Candidate(backend, times[name]) for name, backend in backends.items()]
    best = min(candidates, key=lambda candidate: float(np.median(candidate.times))).backend
    table = [str(candidate) for candidate in candidates]
    table += [f"  {name:<12} {reason}" for name, reason in failures.items()]
    lines = ["backend=auto", *table, f"  fastest here: backend={best.name} (set it to save this)"]
    tqdm.write("\n".join(lines), file=sys.stderr)
    return best


def _run(backend: Backend, canvas: torch.Tensor) -> None:
    backend(canvas)[0].cpu()  # waits for a GPU
