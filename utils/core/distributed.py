"""Several processes that train one network together, started by `torchrun`; all of it does nothing for one process.

Every process reads the same data and makes the same random draws, and works on its own rows of each batch. Gradients,
batch-norm statistics and the loss's counts are taken over all of them, so that they compute what one process would.
"""

import atexit
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from tqdm import tqdm

from utils.core.errors import UserError

Value = TypeVar("Value")
Given = ParamSpec("Given")


def init() -> None:
    """Join the processes that `torchrun` started with this one; only the first one prints from now on.

    Raises:
        UserError: more processes on this machine than it has GPUs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or _started():
        return
    gpus = torch.cuda.device_count()
    if gpus and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > gpus:
        raise UserError(
            f"torchrun: {os.environ['LOCAL_WORLD_SIZE']} processes, but this machine has {gpus} GPUs"
        )
    if gpus:
        torch.cuda.set_device(local_rank())
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo")
    atexit.register(dist.destroy_process_group)
    if rank():
        _be_quiet()


def _started() -> bool:
    return dist.is_available() and dist.is_initialized()


def _be_quiet() -> None:
    """Errors are still told."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115  for as long as the process lives
    shown = tqdm.__init__

    def hidden(self: tqdm, *args: Any, **options: Any) -> None:
        shown(self, *args, **{**options, "disable": True})

    tqdm.__init__ = hidden  # type: ignore[method-assign]


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if _started() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if _started() else 0


def local_rank() -> int:
    """Number of this process among those on this machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0")) if _started() else 0


def is_main_process() -> bool:
    """Whether this process is the one that prints and writes."""
    return rank() == 0


def barrier() -> None:
    """Until all processes have come here."""
    if world_size() > 1:
        dist.barrier(device_ids=[local_rank()] if torch.cuda.is_available() else None)


def main_process_only(write: Callable[Given, None]) -> Callable[Given, None]:
    """A function that writes files: the first process does it for all."""

    @wraps(write)
    def written(*args: Given.args, **options: Given.kwargs) -> None:
        if is_main_process():
            write(*args, **options)

    return written


@contextmanager
def main_process_first() -> Iterator[None]:
    """What is done here, the first process of each machine does first: the others find its files."""
    if local_rank():
        barrier()
    yield
    if not local_rank():
        barrier()


def broadcast_from_main(make: Callable[[], Value]) -> Value:
    """What `make` returns in the first process, in all of them; its `UserError` is raised in all of them, too."""
    if world_size() == 1:
        return make()
    box: list[Any] = [None]
    if is_main_process():
        try:
            box = [make()]
        except UserError as error:
            box = [error]
    dist.broadcast_object_list(box, 0, device=torch.device("cpu"))
    if isinstance(box[0], UserError):
        raise box[0]
    return box[0]


def gather(own: Sequence[Value]) -> list[Value]:
    """The lists of all processes, merged item by item: the first of each, the second of each, ..."""
    if world_size() == 1:
        return list(own)
    lists: list[list[Value]] = [[] for _ in range(world_size())]
    dist.all_gather_object(lists, list(own))
    return [
        one[index] for index in range(max(map(len, lists))) for one in lists if index < len(one)
    ]


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum over all processes, with gradients: each process's share of the loss depends on all of them."""
    return _Total.apply(tensor) if world_size() > 1 else tensor


def all_reduce_mean(tensor: Tensor) -> Tensor:
    """Mean over all processes."""
    return all_reduce_sum(tensor) / world_size() if world_size() > 1 else tensor


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        result = tensor.clone()
        dist.all_reduce(result)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Total.forward(ctx, gradients[0].contiguous())


def synchronize_batch_norms(network: nn.Module) -> nn.Module:
    """Make every batch normalization take its statistics over all processes; names and tensors stay as they are."""
    if next(network.parameters()).is_cuda:
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.__class__ = type(
                f"Synchronized{type(module).__name__}", (_Synchronized, type(module)), {}
            )
    return network


class _Synchronized(nn.modules.batchnorm._BatchNorm):
    """Batch normalization over all processes, as many values in each: `nn.SyncBatchNorm` refuses the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        over = [axis for axis in range(x.ndim) if axis != 1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        values = x if x.dtype == torch.float64 else x.float()
        mean = all_reduce_sum(values.mean(over)) / world_size()
        centered = values - mean.view(shape)
        variance = all_reduce_sum(centered.square().mean(over)) / world_size()
        self._remember(mean.detach(), variance.detach(), world_size() * x.numel() // x.shape[1])
        scaled = centered * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            scaled = scaled * self.weight.view(shape) + self.bias.view(shape)
        return scaled.to(x.dtype)

    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        if (
            self.running_mean is None
            or self.running_var is None
            or self.num_batches_tracked is None
        ):
            return
        self.num_batches_tracked.add_(1)
        weight = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, weight)
        self.running_var.lerp_(variance * count / max(count - 1, 1), weight)
