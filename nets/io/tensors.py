"""Tensors from files: what a network accepts, and how they get into it."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from utils.core.errors import NonFiniteError, UserError, shorten

DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)
HEADS = {"predict32": 512, "predict16": 256, "predict8": 128}  # name -> channels of its input
NOT_FINITE = "contains NaN or infinity"
LOWEST_VARIANCE = -nn.BatchNorm2d(1).eps  # below, batch normalization gives NaN


def check_tensors(tensors: Mapping[str, Tensor], origin: str) -> None:
    """Refuse tensors that no network can compute with.

    Args:
        tensors: the tensors by name.
        origin: the file, and the key that they are under.

    Raises:
        NonFiniteError: names the first tensor that contains NaN or infinity.
        UserError: names the first one that is not dense, is larger than its storage, has another
            type than `DTYPES`, or holds a variance that is negative.
    """
    for name, tensor in tensors.items():
        problem = _find_problem(name, tensor)
        if problem:
            error = NonFiniteError if problem == NOT_FINITE else UserError
            raise error(f"{origin}: {shorten(name)}: {problem}")


def _find_problem(name: str, tensor: Tensor) -> str:
    # attributes of an unpickled tensor may hide its methods
    is_plain = type(tensor) in (Tensor, nn.Parameter) and not vars(tensor)
    if not is_plain or tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized:
        return "expected a dense tensor"
    if tensor.device.type != "cpu":
        return "has a shape but no values"
    if tensor.dtype not in DTYPES:
        return f"values of type {tensor.dtype}, expected float32"
    size = tensor.numel() * tensor.element_size()
    if size > tensor.untyped_storage().nbytes():
        return f"shape {tuple(tensor.shape)}, but the file has fewer values"
    if not torch.isfinite(tensor).all():
        return NOT_FINITE
    if name.endswith("running_var") and (tensor <= LOWEST_VARIANCE).any():
        return "contains negative variances"
    return ""


def count_classes(tensors: Mapping[str, Tensor], origin: str) -> int | None:
    """Return the number of classes of the heads; None if there are none.

    Args:
        tensors: checked tensors by name (this project's).
        origin: the file, and the key that they are under.

    Raises:
        UserError: the shape of a head is not one of a YOLOv4-tiny, or two heads differ.
    """
    counts = set()
    for head, channels in HEADS.items():
        bias, weight = (tensors.get(f"{head}.{part}") for part in ("bias", "weight"))
        if bias is None or weight is None:
            continue
        outputs = bias.numel()
        shapes = (tuple(bias.shape), tuple(weight.shape))
        if shapes != ((outputs,), (outputs, channels, 1, 1)) or outputs % 3 or outputs < 18:
            raise UserError(
                f"{origin}: {head}: bias {shapes[0]} and weight {shapes[1]}, expected (n,) and "
                f"(n, {channels}, 1, 1) with n = 3 * (5 + number of classes)"
            )
        counts.add(outputs // 3 - 5)
    if len(counts) > 1:
        raise UserError(f"{origin}: one head has {min(counts)} classes, another has {max(counts)}")
    return counts.pop() if counts else None


def check_fit(
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    origin: str,
    wanted_by: str = "its configuration",
) -> None:
    """Refuse tensors that are not exactly those of a network.

    Args:
        network: on any device, `meta` included.
        tensors: name to tensor.
        origin: the file, and the key that they are under.
        wanted_by: what asks for the network.

    Raises:
        UserError: names the first tensor that is missing, unknown, or has another shape or kind.
    """
    difference = _find_difference(network, tensors)
    if difference:
        raise does_not_fit(origin, wanted_by, difference)


def does_not_fit(origin: str, wanted_by: str, difference: str) -> UserError:
    """The error for weights of another network."""
    return UserError(
        f"{origin}: its weights do not fit the network that {wanted_by} asks for: {difference}"
    )


def _find_difference(network: nn.Module, tensors: Mapping[str, Tensor]) -> str:
    own = network.state_dict()
    for name, like in own.items():
        tensor = tensors.get(name)
        if tensor is None:
            return f"{name} is missing"
        if tensor.shape != like.shape:
            return f"{name} has shape {tuple(tensor.shape)}, expected {tuple(like.shape)}"
        if tensor.is_floating_point() != like.is_floating_point():
            return f"{name} is of type {tensor.dtype}, expected {like.dtype}"
    return next((f"unknown tensor {shorten(name)}" for name in tensors if name not in own), "")


def load_tensors(
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    origin: str,
    wanted_by: str = "its configuration",
) -> None:
    """Copy tensors into a network; see `check_fit`."""
    check_fit(network, tensors, origin, wanted_by)
    network.load_state_dict(dict(tensors))  # a copy: without the metadata of the file's mapping
