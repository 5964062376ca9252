"""Training one network in several processes started by `torchrun`; a no-op in a single process.

Every process reads the same data and draws the same random numbers, but processes different rows
of each batch. Gradients, batch-norm statistics and the counts in the loss are reduced over all
processes, so that together they compute what a single process would.
"""

import atexit
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from utils.core.errors import UserError
from utils.core.signals import leave_to_main_process

Value = TypeVar("Value")
Params = ParamSpec("Params")


def init() -> None:
    """Join the process group if `torchrun` started this process.

    Raises:
        UserError: there are more processes on this machine than GPUs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or _is_initialized():
        return
    gpus = torch.cuda.device_count()
    local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if gpus and local_world_size > gpus:
        raise UserError(f"torchrun: {local_world_size} processes, but this machine has {gpus} GPUs")
    if gpus:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo")
    atexit.register(dist.destroy_process_group)
    if not is_main_process():
        leave_to_main_process()


def _is_initialized() -> bool:
    return dist.is_available() and dist.is_initialized()


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if _is_initialized() else 1


def rank() -> int:
    """Index of this process among all processes."""
    return dist.get_rank() if _is_initialized() else 0


def local_rank() -> int:
    """Index of this process among those on this machine."""
    return int(os.environ.get("LOCAL_RANK", "0")) if _is_initialized() else 0


def is_main_process() -> bool:
    """Whether this is the process that prints and writes files."""
    return rank() == 0


def barrier() -> None:
    """Wait until all processes have reached this call."""
    if world_size() > 1:
        dist.barrier(device_ids=[local_rank()] if torch.cuda.is_available() else None)


def main_process_only(function: Callable[Params, None]) -> Callable[Params, None]:
    """Decorate a function that only the main process executes, e.g. one that writes files."""

    @wraps(function)
    def wrapper(*args: Params.args, **kwargs: Params.kwargs) -> None:
        if is_main_process():
            function(*args, **kwargs)

    return wrapper


@contextmanager
def main_process_first() -> Iterator[None]:
    """Run the block in one process of each machine before the others, which find its files."""
    if local_rank():
        barrier()
    yield
    if not local_rank():
        barrier()


def broadcast_from_main(function: Callable[[], Value]) -> Value:
    """Call `function` in the main process and return its result in all of them.

    Raises:
        UserError: raised by `function`; in all processes.
    """
    if world_size() == 1:
        return function()
    message: list[Any] = [None]
    if is_main_process():
        try:
            message = [function()]
        except UserError as error:
            message = [error]
    dist.broadcast_object_list(message, 0, device=torch.device("cpu"))
    if isinstance(message[0], UserError):
        raise message[0]
    return message[0]


def gather(items: Sequence[Value]) -> list[Value]:
    """Gather the lists of all processes, interleaved: the first item of each, the second, ..."""
    if world_size() == 1:
        return list(items)
    lists: list[list[Value]] = [[] for _ in range(world_size())]
    dist.all_gather_object(lists, list(items))
    gathered = []
    for index in range(max(len(part) for part in lists)):
        gathered += [part[index] for part in lists if index < len(part)]
    return gathered


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Differentiable sum over all processes."""
    return _AllReduceSum.apply(tensor) if world_size() > 1 else tensor


def all_reduce_mean(tensor: Tensor) -> Tensor:
    """Differentiable mean over all processes."""
    return all_reduce_sum(tensor) / world_size() if world_size() > 1 else tensor


class _AllReduceSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        result = tensor.clone()
        dist.all_reduce(result)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _AllReduceSum.forward(ctx, gradients[0].contiguous())


def synchronize_batch_norms(network: nn.Module) -> nn.Module:
    """Compute batch norm statistics over all processes; state dict keys stay the same."""
    if next(network.parameters()).is_cuda:
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            name = f"Synchronized{type(module).__name__}"
            module.__class__ = type(name, (_SynchronizedBatchNorm, type(module)), {})
    return network


class _SynchronizedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over equal parts of a batch on CPUs: `nn.SyncBatchNorm` needs a GPU."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        values = x if x.dtype == torch.float64 else x.float()
        mean = all_reduce_sum(values.mean(axes)) / world_size()
        centered = values - mean.view(shape)
        variance = all_reduce_sum(centered.square().mean(axes)) / world_size()
        count = world_size() * x.numel() // x.shape[1]
        self._update_running_stats(mean.detach(), variance.detach(), count)
        normalized = centered * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normalized = normalized * self.weight.view(shape) + self.bias.view(shape)
        return normalized.to(x.dtype)

    def _update_running_stats(self, mean: Tensor, variance: Tensor, count: int) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        if self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        weight = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, weight)
        self.running_var.lerp_(variance * count / max(count - 1, 1), weight)
