"""`compare.py --ray`: the Ray cluster that trials run on, and the resources each of them gets."""

import logging
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from utils.compare.planning.plan import Plan
from utils.core.config import PROJECT_DIR
from utils.core.errors import UserError, require_package
from utils.core.schema import Config
from utils.core.signals import handlers_kept
from utils.engine.settle import BATCH_SIZE

LOCAL = "local"  # the address that makes this command start its own Ray instance
CONNECT_SECONDS = 10.0
RETRIES = 3  # new attempts for a trial whose worker died
GIB = 2**30
# Memory of a training on the CPU: an amount per pixel of its batch, and one per process.
BYTES_PER_PIXEL = 512
CPU_PROCESS_BYTES = GIB
GPU_PROCESS_BYTES = 3 * GIB
# Ray reads these when it is imported; the user's own values take precedence.
RAY_ENVIRONMENT = {
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # hide Ray's messages about dead workers
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # no warning about a future change
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # trainings are not background work
    "RAY_task_oom_retries": str(RETRIES),  # by default without limit
}


@dataclass(frozen=True)
class Resources:
    """The resources that a trial takes on its machine.

    Attributes:
        gpus: number of GPUs, 0 or 1.
        cpus: CPU cores; a fraction where a GPU's share is less than one.
        memory: bytes of main memory.
    """

    gpus: int
    cpus: float
    memory: int


def check_ray(address: str, plan: Plan) -> None:
    """Check the options of `--ray`, before minutes are spent reading data.

    Raises:
        UserError: Ray is missing, nothing answers at the address, or a setting names one GPU.
    """
    _import_ray()
    for setting in plan.settings:
        device = setting.config.device
        if ":" in device:
            raise UserError(f"device={device}: --ray assigns the GPUs itself; give device=cuda")
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", address)
    if address in (LOCAL, "auto"):
        return
    match = re.fullmatch(r"(?:ray://)?(.+):(\d{1,5})", address)
    if not match:
        raise UserError(f"--ray {address}: expected auto, host:port or ray://host:port")
    host, port = match[1].strip("[]"), int(match[2])
    try:  # Ray itself would try for minutes and then end the process
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except (OSError, OverflowError, ValueError) as error:
        raise UserError(f"--ray {address}: nothing answers there ({error})") from None


@contextmanager
def connect(address: str) -> Iterator[Any]:
    """Yield the module `ray`, connected; an existing connection is used and kept.

    Args:
        address: address of a cluster, or `local` for a Ray instance that ends with this block.

    Raises:
        UserError: Ray is missing, or the cluster cannot be joined.
    """
    ray = _import_ray()
    if ray.is_initialized():
        yield ray
        return
    options: dict[str, Any] = {}
    if address == LOCAL:
        options = local_options()
    elif "://" in address:  # a process of the cluster unpickles our functions
        options = {"runtime_env": {"env_vars": _python_path()}}
    try:
        with handlers_kept():
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:  # of many types: no such cluster, different versions, no memory
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"--ray {address}: {lines[0]}") from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _import_ray() -> Any:
    for name, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    return require_package("ray", "--ray")


def local_options() -> dict[str, Any]:
    """Options of our own Ray instance: the cores of this process, and little object memory."""
    options: dict[str, Any] = {"include_dashboard": False, "object_store_memory": 100 * 2**20}
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
        if cores < (os.cpu_count() or 1):
            options["num_cpus"] = cores
    return options


def estimate_resources(
    config: Config, machines: Sequence[Mapping[str, float]], image_counts: Sequence[int]
) -> Resources:
    """Choose what a trial gets: a GPU with its share of the cores, or `threads` cores, or one.

    Parallel trials on one core each finish sooner than sequential ones on all cores. A trial never
    gets more than some machine has, so that every trial can start.

    Args:
        config: configuration of the trial.
        machines: resources of every machine, as Ray reports them.
        image_counts: number of images in the training and in the validation split.
    """
    height, width = config.input_size
    gpu_machines = [machine for machine in machines if machine.get("GPU", 0) >= 1]
    if gpu_machines and config.device in ("auto", "cuda"):
        share = min(machine.get("CPU", 0) / machine["GPU"] for machine in gpu_machines)
        gpus = 1
        cpus = min(config.threads or share, share)
        memory = GPU_PROCESS_BYTES
    else:
        most = max((machine.get("CPU", 0) for machine in machines), default=0)
        gpus = 0
        cpus = min(config.threads or 1, most or 1)
        batch_size = config.train.batch_size
        if batch_size == "auto":
            batch_size = BATCH_SIZE
        memory = CPU_PROCESS_BYTES + BYTES_PER_PIXEL * batch_size * height * width
    if cpus > 1:
        cpus = int(cpus)  # Ray accepts fractions only below one
    if config.data.cache == "ram":
        for count in image_counts:
            memory += int(min(count * height * width * 3, config.data.cache_gb * GIB))
    suitable = [
        machine.get("memory", memory)
        for machine in machines
        if machine.get("GPU", 0) >= gpus and machine.get("CPU", 0) >= cpus
    ]
    return Resources(gpus, cpus, int(min(memory, max(suitable, default=memory))))


def task_options(resources: Resources) -> dict[str, Any]:
    """Ray's options for a trial."""
    variables = {**_python_path(), "OMP_NUM_THREADS": str(max(1, int(resources.cpus)))}
    if not resources.gpus:
        variables["CUDA_VISIBLE_DEVICES"] = ""
    return {
        "num_gpus": resources.gpus,
        "num_cpus": resources.cpus,
        "memory": resources.memory,
        "max_retries": RETRIES,
        "runtime_env": {"env_vars": variables},
    }


def _python_path() -> dict[str, str]:
    """The environment in which workers find the project."""
    paths = [str(PROJECT_DIR), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
