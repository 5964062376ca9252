"""Tracing networks for pnnx, within what it and ncnn understand.

- pnnx gets arithmetic of sizes wrong, such as the remainder of a negative number: sizes become
  plain numbers, and none is left.
- ncnn's tensors have at most four axes and the batch. Windows are cut by a permutation of more:
  it becomes several of four axes, between which the tensor is reshaped.

So attention blocks can be written without a thought of these.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from nets.io.torchscript import trace
from nets.yolo.yolov4_tiny import YOLOv4Tiny
from utils.core.schema import Config

AXES = 5  # of a tensor in ncnn, with the batch
SIZES = (Tensor.shape.__get__, Tensor.size, Tensor.numel)  # type: ignore[attr-defined]
RESHAPES = (Tensor.flatten, Tensor.unflatten, Tensor.reshape, Tensor.view)


def trace_for_pnnx(network: YOLOv4Tiny, config: Config) -> torch.jit.ScriptModule:
    """`trace` with a module that gives the same results in other words.

    Args:
        network: on any device.
        config: its configuration.
    """
    with _FewAxes():
        return trace(network, config)


class _FewAxes(TorchFunctionMode):
    """While active, replaces sizes, and reshapes and permutations of more than `AXES` axes."""

    def __init__(self) -> None:
        super().__init__()
        # By id, a tensor of more axes, and what it was reshaped from. What is reshaped again is
        # reshaped from there, and the tensor itself has no further use in the trace.
        self._origins: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(
        self,
        func: Callable,
        types: Iterable[type],
        args: Sequence = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in SIZES:
            whole = isinstance(result, torch.Size)
            return torch.Size(map(int, result)) if whole else int(result)
        if func in RESHAPES:
            return self._reshaped(args[0], list(map(int, result.shape)))
        if func == Tensor.permute and result.ndim > AXES:
            order = [axis % result.ndim for axis in args[1:]]
            return result if order[0] else self._permuted(args[0], order)
        return result

    def _reshaped(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        _, origin = self._origins.get(id(x), (x, x))
        y = origin.reshape(shape)
        if len(shape) > AXES:
            self._origins[id(y)] = y, origin
        return y

    def _permuted(self, x: Tensor, order: Sequence[int]) -> Tensor:
        """Bring axis by axis to its place, along with those that stay behind it."""
        shape, current, y = list(map(int, x.shape)), list(range(x.ndim)), x
        for place, axis in enumerate(order):
            first = current.index(axis)
            moved = _shared(current[first:], order[place:])
            before, skipped, behind = current[:place], current[place:first], current[first:]
            current = [*before, *moved, *skipped, *behind[len(moved) :]]
            if skipped:
                parts = before[1:], skipped, moved, behind[len(moved) :]
                sizes = [math.prod(shape[axis] for axis in part) for part in parts]
                y = self._reshaped(y, [shape[0], *sizes]).transpose(2, 3)
        return self._reshaped(y, [shape[axis] for axis in order])


def _shared(left: Sequence[int], right: Sequence[int]) -> list[int]:
    """What both start with."""
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False))
    return [first for first, _ in pairs]
