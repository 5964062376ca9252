"""`compare.py --ray`: the Ray that trainings run on, and what each is given of it."""

import logging
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.compare.plan import Plan
from utils.core.errors import UserError, require_package
from utils.core.schema import Config

LOCAL = "local"  # the address of a Ray of the command's own
ANSWER = 10.0  # seconds
GIB = 2**30
PIXEL_BYTES = 512  # that a training needs for a pixel of its batch, on the CPU, and, at least:
PROCESS, GPU_PROCESS = GIB, 3 * GIB
# read by Ray when it is imported; what the user has set goes before
SETTINGS = {
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # its messages on dead workers
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # its announcement of a change
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # of a Ray of our own: trainings are no background work
}


@dataclass(frozen=True)
class Needs:
    """What a training takes of its machine; `memory` in bytes."""

    gpus: int
    cpus: float
    memory: int


def refuse_early(address: str, plan: Plan) -> None:
    """Find the mistakes of `--ray` before minutes go into reading data.

    Raises:
        UserError: Ray is missing, nothing answers at the address, or a setting asks for a certain GPU.
    """
    _ray()
    for variant in plan.variants:
        if ":" in variant.config.device:
            raise UserError(
                f"device={variant.config.device}: --ray hands out the GPUs itself; give device=cuda"
            )
    address = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    if address in (LOCAL, "auto"):
        return
    found = re.fullmatch(r"(?:ray://)?(.+):(\d+)", address)
    if not found:
        raise UserError(f"--ray {address}: expected auto, host:port or ray://host:port")
    try:  # Ray itself would try for minutes, and then end the process
        socket.create_connection((found[1].strip("[]"), int(found[2])), ANSWER).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"--ray {address}: nothing answers there ({error})") from None


@contextmanager
def joined(address: str) -> Iterator[Any]:
    """Ray, connected to a cluster, or with `local` to one of this process' own; one that is connected stays so.

    Raises:
        UserError: Ray is missing, or the cluster cannot be joined.
    """
    ray = _ray()
    if ray.is_initialized():
        yield ray
        return
    # by ray:// it is a process of the cluster that asks for the workers, and reads their code
    more = (
        _own()
        if address == LOCAL
        else {"runtime_env": {"env_vars": _path()}}
        if "://" in address
        else {}
    )
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **more)
    except Exception as error:  # of many kinds: no such cluster, other versions, no room
        raise UserError(
            f"--ray {address}: {(str(error).strip().splitlines() or [type(error).__name__])[0]}"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _ray() -> Any:
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    return require_package("ray", "--ray")


def _own() -> dict[str, Any]:
    """A Ray with as many cores as this process may use (`taskset`), and little room for objects, as there are none."""
    own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": 100 * 2**20}
    if hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) < (os.cpu_count() or 1):
        own["num_cpus"] = len(os.sched_getaffinity(0))
    return own


def needs(
    config: Config, machines: Sequence[Mapping[str, float]], pictures: Sequence[int]
) -> Needs:
    """What a training is given: a GPU with its share of the cores, or `threads` cores, or one.

    One core each gives more trainings an hour than all cores for one. Nothing is asked for that no machine has.

    Args:
        machines: Ray's resources of each. images: number of them in the training and the validation split.
    """
    with_gpu = [machine for machine in machines if machine.get("GPU", 0) >= 1]
    height, width = config.input_size
    cached = [min(count * height * width * 3, config.data.cache_gb * GIB) for count in pictures]
    memory = sum(cached) if config.data.cache == "ram" else 0.0
    if with_gpu and config.device in ("auto", "cuda"):
        share = min(machine.get("CPU", 0) / machine["GPU"] for machine in with_gpu)
        gpus, cpus = 1, min(config.threads or share, share)
        memory += GPU_PROCESS
    else:
        most = max((machine.get("CPU", 0) for machine in machines), default=0)
        gpus, cpus = 0, min(config.threads or 1, most or 1)
        memory += PROCESS + PIXEL_BYTES * config.train.batch_size * height * width
    cpus = int(cpus) if cpus > 1 else cpus  # Ray: above one only whole cores
    fit = [
        machine
        for machine in machines
        if machine.get("GPU", 0) >= gpus and machine.get("CPU", 0) >= cpus
    ]
    room = max((machine.get("memory", memory) for machine in fit), default=memory)
    return Needs(gpus, cpus, int(min(memory, room)))


def options(asked: Needs) -> dict[str, Any]:
    """Ray's, for a worker."""
    variables = {**_path(), "OMP_NUM_THREADS": str(max(1, int(asked.cpus)))}
    if not asked.gpus:
        variables["CUDA_VISIBLE_DEVICES"] = ""
    resources = {"num_gpus": asked.gpus, "num_cpus": asked.cpus, "memory": asked.memory}
    return {
        **resources,
        "runtime_env": {"env_vars": variables},
        "max_restarts": 0,
        "max_task_retries": 0,
    }


def _path() -> dict[str, str]:
    """Where workers find the project."""
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
