"""Making a backend by its name; `auto` measures those that are there."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from statistics import median

import torch
from tqdm import tqdm

from nets.inference.backends.base import (
    BACKENDS,
    ON_TORCH,
    Backend,
    Source,
    choose_device,
    choose_precision,
)
from nets.inference.backends.onnxruntime_backend import OnnxRuntimeBackend
from nets.inference.backends.openvino_backend import OpenVinoBackend
from nets.inference.backends.torch_backend import CompiledBackend, TorchBackend
from utils.core.errors import UserError
from utils.core.timing import Budget, interleave, timed

MAKERS: dict[str, Callable[[Source, str, torch.device], Backend]] = {
    "torch": TorchBackend,
    "compile": CompiledBackend,
    "onnxruntime": OnnxRuntimeBackend,
    "openvino": OpenVinoBackend,
}
SECONDS = 1.0  # measured for each backend


@dataclass
class Candidate:
    """A backend that `auto` considers: what was made, ms an image, or why it is out of the question."""

    name: str
    backend: Backend | None = None
    reason: str = ""
    times: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        if self.backend is None:
            return f"  {self.name:<12} {self.reason}"
        spread = f"{min(self.times):.1f} to {max(self.times):.1f}"
        return f"  {self.name:<12} {self.backend.precision}  {median(self.times):7.2f} ms an image ({spread})"


def make_backend(name: str, source: Source) -> Backend:
    """Make a backend.

    Args:
        name: one of `BACKENDS`, or "auto".

    Raises:
        UserError: its package is missing, or it does not compute on that device or in that precision.
    """
    if name == "auto":
        return _fastest(source)
    if source.onnx and name in ON_TORCH:
        raise UserError(
            f"backend={name}: cannot run {source.onnx}; expected onnxruntime or openvino"
        )
    device = choose_device(name, source.config.device)
    return MAKERS[name](source, choose_precision(name, source.config.precision, device), device)


def _fastest(source: Source) -> Backend:
    """Measure every backend that can be made here, in turns, and take the fastest; the table goes to stderr."""
    candidates = [_candidate(name, source) for name in BACKENDS]
    made = [one for one in candidates if one.backend]
    if not made:
        raise UserError(
            f"backend=auto: none works here: {'; '.join(f'{c.name}: {c.reason}' for c in candidates)}"
        )
    height, width = source.config.input_size
    canvas = torch.randint(0, 256, (1, height, width, 3), dtype=torch.uint8)
    clocks = {one.name: timed(partial(_run, one.backend, canvas)) for one in made if one.backend}
    for one, times in zip(
        made, interleave(clocks, Budget(SECONDS * len(made))).values(), strict=True
    ):
        one.times = times.tolist()
    best = min(made, key=lambda one: median(one.times))
    assert best.backend is not None
    table = "\n".join(str(one) for one in candidates)
    tqdm.write(
        f"backend=auto\n{table}\n  fastest here: backend={best.name} (set it to save this)",
        file=sys.stderr,
    )
    return best.backend


def _candidate(name: str, source: Source) -> Candidate:
    height, width = source.config.input_size
    try:
        backend = make_backend(name, source)
        for _ in range(2):
            backend(torch.zeros(1, height, width, 3, dtype=torch.uint8))  # compiles, fills caches
    except UserError as error:
        return Candidate(name, reason=str(error))
    return Candidate(name, backend)


def _run(backend: Backend, canvas: torch.Tensor) -> None:
    backend(canvas)[0].cpu()  # waits for a GPU
