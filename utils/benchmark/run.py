"""The sections of the benchmark, and the machine it ran on."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from utils.benchmark import data, evaluation, gemm, inference, post, train, video
from utils.benchmark.bench import Bench
from utils.benchmark.rows import Section
from utils.core.environment import cpu_count, cpu_name, library_versions
from utils.core.errors import UserError, nearest

SECTIONS: dict[str, Callable[[Bench], Section]] = {
    "gemm": lambda bench: gemm.section(bench.products),
    "train": train.section,
    "inference": inference.section,
    "data": data.section,
    "post": post.section,
    "evaluation": evaluation.section,
    "video": video.section,
}
WITH_PEAK = (
    "train",
    "inference",
)  # state their share of the matrix products' rate, which is shown too


def chosen(names: Sequence[str]) -> list[str]:
    """Sections in their order; all where none is named.

    Raises:
        UserError: an unknown one.
    """
    for name in names:
        if name not in SECTIONS:
            raise UserError(f"section '{name}' does not exist{nearest(name, SECTIONS)}")
    wanted = set(names or SECTIONS)
    return [
        name
        for name in SECTIONS
        if name in wanted or (name == "gemm" and wanted.intersection(WITH_PEAK))
    ]


def run(bench: Bench, names: Sequence[str]) -> Iterator[Section]:
    """Measure section by section. What libraries print meanwhile goes to stderr: stdout is for the tables."""
    for name in names:
        with contextlib.redirect_stdout(sys.stderr):
            measured = SECTIONS[name](bench)
        bench.end_processes()
        yield measured


def header(bench: Bench, command: str) -> dict[str, Any]:
    """`command`, `machine` and `settings` of the JSON file."""
    settings, config, device = bench.settings, bench.config, bench.device
    return {
        "command": command,
        "machine": {
            "device": str(device),
            "processor": cpu_name(),
            "cores": cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
            "precision": bench.precision,
            "versions": library_versions(),
        },
        "settings": {
            "input_size": list(config.input_size),
            "batch_size": config.train.batch_size,
            "phi": config.phi,
            "classes": len(bench.train_split.class_names),
            "gflops": round(bench.gflops, 4),
            "weights": str(settings.weights) if settings.weights else None,
            "quick": settings.quick,
            "full": settings.full,
        },
    }


def title(head: dict[str, Any]) -> str:
    """The machine and the settings in three lines."""
    machine, settings = head["machine"], head["settings"]
    height, width = settings["input_size"]
    where = f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads"
    gpu = f"; {machine['gpu']}" if machine["gpu"] else ""
    libraries = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    network = f"phi {settings['phi']}, {settings['classes']} classes, {settings['gflops']:.2f} GFLOP an image"
    return "\n".join(
        [
            f"machine: {where}{gpu}; {machine['device']}, {machine['precision']}",
            f"versions: {libraries}",
            f"network: {network} at {width}x{height}, batches of {settings['batch_size']}",
        ]
    )
