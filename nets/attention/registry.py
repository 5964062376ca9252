"""The registry of attention blocks, and the accepted forms of `phi`.

A spec is one of: a registered name; the reference implementation's numbers 0 to 4;
`{"name": ..., option: value}`; `package.module:Class` for a user's own block; `none` (also
0 or null) for no block.

A user's block is code of this machine: naming it imports its module, and so executes that, be it
in a configuration or in the weights of someone else. Only a subclass of `nn.Module` is called.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeGuard, TypeVar

import torch
from torch import nn

from nets.attention.base import IdentityStart
from nets.attention.options import check_options
from utils.core.errors import UserError, nearest, shorten

Spec = int | str | Mapping[str, Any] | None
Block = TypeVar("Block", bound=type[nn.Module])

MAX_PARAMETERS = 100_000_000  # of a block; the network without attention has six million
REFERENCE_NUMBERS = {"0": "none", "1": "se", "2": "cbam", "3": "eca", "4": "ca"}


@dataclass(frozen=True)
class BlockInfo:
    """A block that can be built.

    Attributes:
        name: registered name, or `package.module:Class`.
        factory: the class, called with the channels and the options.
        family: channel, spatial, mixed, self_attention, multi_branch or control; user for a
            user's own block.
        paper: authors, title, venue, arXiv number.
    """

    name: str
    factory: Callable[..., nn.Module]
    family: str
    paper: str


_registered: dict[str, BlockInfo] = {}


def register(name: str, *, family: str, paper: str) -> Callable[[Block], Block]:
    """Return a class decorator that registers a block.

    Args:
        name: name of the block in `phi`.
        family: see `BlockInfo`.
        paper: authors, title, venue, arXiv number.
    """

    def add(cls: Block) -> Block:
        known = _registered.get(name)
        if known is not None and _path(known.factory) != _path(cls):
            raise ValueError(
                f"attention block '{name}' is registered twice: {known.factory} and {cls}"
            )
        _registered[name] = BlockInfo(name, cls, family, paper)
        return cls

    return add


def _path(cls: Any) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__  # those of a module that is loaded again are the same


@cache
def _discover() -> None:
    """Import every module of `nets.attention.blocks`: each registers its blocks."""
    blocks = importlib.import_module("nets.attention.blocks")
    for module in pkgutil.iter_modules(blocks.__path__):
        importlib.import_module(f"{blocks.__name__}.{module.name}")


def names() -> list[str]:
    """Return all registered names, sorted, without `none`."""
    _discover()
    return sorted(_registered)


def block_info(name: str) -> BlockInfo:
    """Return the block called `name`, which may be a user's `package.module:Class`.

    Raises:
        UserError: no such name, module or class.
    """
    if ":" in name:
        return BlockInfo(name, _import_block(name), "user", "")
    if name not in names():
        hint = nearest(name, ["none", *names()])
        raise UserError(f"phi: unknown attention block '{shorten(name)}'{hint}")
    return _registered[name]


def build(spec: Spec, channels: int, init: Literal["paper", "identity"] = "paper") -> nn.Module:
    """Build a block.

    Args:
        spec: see the module docstring; `none` gives `nn.Identity`.
        channels: C, channels of the input and output.
        init: "paper": the initialization from the paper. "identity": y = x, bit for bit, until
            training changes it; a block without `identity_at_start` is wrapped in `IdentityStart`.

    Raises:
        UserError: unknown name or option, a value of the wrong type or range, or a user's block
            that breaks the interface `(channels, **options)`, `(B, C, H, W) -> (B, C, H, W)`.
    """
    if init not in ("paper", "identity"):
        raise UserError(f"attention.init: expected paper or identity, got {init!r}")
    name, options = _parse_spec(spec)
    if name == "none":
        return nn.Identity()
    info = block_info(name)
    options = check_options(name, info.factory, options)
    if info.family == "user":
        block = _build_user_block(info, channels, options)
    else:
        _check_size(info, channels, options)
        block = info.factory(channels, **options)
    if init == "identity" and not getattr(block, "identity_at_start", False):
        return IdentityStart(block)
    return block


def _check_size(info: BlockInfo, channels: int, options: Mapping[str, Any]) -> None:
    """Count the parameters without allocating any."""
    with torch.device("meta"):
        block = info.factory(channels, **options)
    params = sum(parameter.numel() for parameter in block.parameters())
    if params > MAX_PARAMETERS:
        raise UserError(
            f"phi: {shorten(describe({'name': info.name, **options}))} has {params:,} parameters "
            f"for {channels} channels; expected at most {MAX_PARAMETERS:,}"
        )


def parse_phi(phi: Spec, at: Sequence[str]) -> dict[str, Spec]:
    """Expand the configuration's `phi` into one spec per site; sites without a block are left out.

    Args:
        phi: one block for all sites in `at`, or a mapping from site to block (without the key
            `name`): `{feat1: eca, feat2: cbam}`.
        at: the sites to use if `phi` is a single block.

    Raises:
        UserError: unknown block or option. The network checks whether the sites exist.
    """
    if isinstance(phi, Mapping) and "name" not in phi:
        sites = dict(phi)
    else:
        sites = dict.fromkeys(at, phi)
        if not at and _checked_name(phi) != "none":
            raise UserError(f"attention.at: expected at least one site for phi={describe(phi)}")
    return {site: spec for site, spec in sites.items() if _checked_name(spec) != "none"}


def is_user_block(spec: Spec) -> bool:
    """Whether the spec names a user's `package.module:Class`."""
    return ":" in _parse_spec(spec)[0]


def describe(spec: Spec) -> str:
    """Return the spec as one canonical line, for tables and file names: `cbam(reduction=16)`."""
    name, options = _parse_spec(spec)
    inside = ", ".join(f"{key}={value}" for key, value in options.items())
    return f"{name}({inside})" if inside else name


def _parse_spec(spec: Spec) -> tuple[str, dict[str, Any]]:
    """Return the name and the options; the reference's numbers become names."""
    options = dict(spec) if isinstance(spec, Mapping) else {"name": spec}
    name = options.pop("name", None)
    if name is None:
        name = "none"
    if isinstance(name, bool) or not isinstance(name, (int, str)):
        raise UserError(
            f"phi: expected a number 0 to 4, a name or {{name: ..., option: value}}, "
            f"got {shorten(spec, quoted=True)}"
        )
    name = REFERENCE_NUMBERS.get(str(name), str(name))
    if name == "none" and options:
        raise UserError(f"phi: none takes no options, got {', '.join(map(str, options))}")
    return name, options


def _checked_name(spec: Spec) -> str:
    """Return the name, after checking that the block exists and accepts the options."""
    name, options = _parse_spec(spec)
    if name != "none":
        check_options(name, block_info(name).factory, options)
    return name


def _import_block(path: str) -> type[nn.Module]:
    """Import `package.module:Class`. This executes the module; the class is not called."""
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # the user's module may do anything on import
        expected = "package.module:Class"
        if isinstance(error, ModuleNotFoundError) and error.name == module_name.partition(".")[0]:
            expected = "it beside the configuration, in the working directory or in PYTHONPATH"
        raise UserError(
            f"phi: cannot import '{shorten(path)}': {_reason(error)}; expected {expected}"
        ) from None
    value = getattr(module, attribute, None)
    if _is_block(value):
        return value
    classes = [name for name, item in vars(module).items() if _is_block(item)]
    if value is not None:
        raise UserError(
            f"phi: '{shorten(path)}' is not a subclass of torch.nn.Module"
            f"{nearest(attribute, classes)}"
        )
    raise UserError(
        f"phi: module '{shorten(module_name)}' has no class '{shorten(attribute)}'"
        f"{nearest(attribute, classes)}"
    )


def _is_block(value: Any) -> TypeGuard[type[nn.Module]]:
    return isinstance(value, type) and issubclass(value, nn.Module)


def _reason(error: BaseException) -> str:
    return shorten(f"{type(error).__name__}: {' '.join(str(error).split())}", 300)


def _build_user_block(info: BlockInfo, channels: int, options: dict[str, Any]) -> nn.Module:
    """Build a user's block and run it once, to report a broken interface before training starts."""
    shape = (2, channels, 13, 9)
    try:
        block = info.factory(channels, **options)
        training = block.training
        with torch.no_grad():
            output = block.eval()(torch.zeros(shape))
        block.train(training)
    except (Exception, SystemExit) as error:
        raise UserError(f"{info.name} fails for {channels} channels: {_reason(error)}") from None
    if not isinstance(output, torch.Tensor) or output.shape != shape:
        got = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise UserError(f"{info.name} maps {shape} to {got}; expected one tensor of the same shape")
    return block
