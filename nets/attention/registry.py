"""From a name in the configuration to a block: the registry, and the spellings of `phi`.

A spec is one of: a registered name; the reference implementation's numbers 0 to 4; `{"name": ..., option: value}`;
`package.module:Class` for a block of the user's own; `none` (also 0 or null) for no block.
"""

import importlib
import pkgutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from nets.attention.layers import IdentityStart
from nets.attention.options import check_options
from utils.core.errors import UserError, nearest

Spec = int | str | Mapping[str, Any] | None
PHI = {
    "0": "none",
    "1": "se",
    "2": "cbam",
    "3": "eca",
    "4": "ca",
}  # the numbers of the reference implementation
Block = TypeVar("Block", bound=type[nn.Module])


@dataclass(frozen=True)
class Entry:
    """A registered block: its class, the file it lives in by family, and the paper it comes from."""

    name: str
    make: Callable[..., nn.Module]
    family: str
    paper: str


_ENTRIES: dict[str, Entry] = {}


def register(name: str, *, family: str, paper: str) -> Callable[[Block], Block]:
    """Class decorator: make the block known by `name`. `paper`: authors, title, venue, arXiv number."""

    def add(cls: Block) -> Block:
        known = _ENTRIES.get(name)
        if known is not None and known.make.__qualname__ != cls.__qualname__:
            raise ValueError(
                f"attention block '{name}' is registered twice: {known.make} and {cls}"
            )
        _ENTRIES[name] = Entry(name, cls, family, paper)
        return cls

    return add


@cache
def _discover() -> None:
    """Import every module of this folder, so that each registers its blocks."""
    package = sys.modules[__package__]
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{__package__}.{module.name}")


def names() -> list[str]:
    """All registered names, sorted (`none` is not a block)."""
    _discover()
    return sorted(_ENTRIES)


def entry(name: str) -> Entry:
    """The registered block of that name, or of the user's own `package.module:Class`.

    Raises:
        UserError: no such name, module or class.
    """
    if ":" in name:
        return Entry(name, _import(name), "user", "")
    if name not in names():
        raise UserError(f"phi: unknown attention block '{name}'{nearest(name, ['none', *names()])}")
    return _ENTRIES[name]


def build(spec: Spec, channels: int, init: Literal["paper", "identity"] = "paper") -> nn.Module:
    """Make the block of `spec` for maps of `channels` channels; `none` gives `nn.Identity`.

    With `init="identity"` the block computes x -> x, bit for bit, until training moves it: blocks that start so by
    themselves (`identity_at_start`) are left alone, the others are wrapped in `IdentityStart`.

    Raises:
        UserError: unknown name or option, a value of the wrong type or range, or a user's block that breaks the
            interface `(channels, **options)`, `(B, C, H, W) -> (B, C, H, W)`.
    """
    if init not in ("paper", "identity"):
        raise UserError(f"attention.init: expected paper or identity, got {init!r}")
    name, options = _split(spec)
    if name == "none":
        return nn.Identity()
    found = entry(name)
    options = check_options(name, found.make, options)
    block = (
        _user_block(found, channels, options) if ":" in name else found.make(channels, **options)
    )
    if init == "identity" and not getattr(block, "identity_at_start", False):
        return IdentityStart(block)
    return block


def parse_phi(phi: Spec, at: Sequence[str]) -> dict[str, Spec]:
    """Expand the configuration's `phi` into one spec a site, sites without a block left out.

    A single block is placed at every site of `at`; a mapping without `name` is one block a site,
    `{feat1: eca, feat2: cbam}`, and names its sites itself.

    Raises:
        UserError: an unknown block or option. Whether a site exists is the network's to say.
    """
    per_site = isinstance(phi, Mapping) and "name" not in phi
    sites = dict(phi) if per_site and isinstance(phi, Mapping) else dict.fromkeys(at, phi)
    return {site: spec for site, spec in sites.items() if _known(spec) != "none"}


def describe(spec: Spec) -> str:
    """The spec in one canonical line, for tables and file names: `cbam(reduction=16)`, `none`."""
    name, options = _split(spec)
    inside = ", ".join(f"{key}={value}" for key, value in options.items())
    return f"{name}({inside})" if inside else name


def _split(spec: Spec) -> tuple[str, dict[str, Any]]:
    """A spec's name and options, the numbers 0 to 4 resolved."""
    options = dict(spec) if isinstance(spec, Mapping) else {"name": spec}
    name = options.pop("name", None)
    name = "none" if name is None else name
    if isinstance(name, bool) or not isinstance(name, (int, str)):
        raise UserError(
            f"phi: expected a number 0 to 4, a name or {{name: ..., option: value}}, got {spec!r}"
        )
    name = PHI.get(str(name), str(name))
    if name == "none" and options:
        raise UserError(f"phi: none takes no options, got {', '.join(map(str, options))}")
    return name, options


def _known(spec: Spec) -> str:
    """The spec's name, after a check that the block exists and takes the options."""
    name, options = _split(spec)
    if name != "none":
        check_options(name, entry(name).make, options)
    return name


def _import(path: str) -> Callable[..., nn.Module]:
    """`package.module:Class` -> the class, looked for on the import path and then in the working directory."""
    module_name, _, attribute = path.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module does wrong on import
        reason = f"{type(error).__name__}: {error}"
        raise UserError(
            f"phi: cannot import '{path}': {reason}; expected package.module:Class"
        ) from None
    made = getattr(module, attribute, None)
    if not callable(made):
        classes = [
            name for name, item in vars(module).items() if nn.Module in getattr(item, "__mro__", ())
        ]
        raise UserError(
            f"phi: module '{module_name}' has no class '{attribute}'{nearest(attribute, classes)}"
        )
    return made


def _user_block(found: Entry, channels: int, options: dict[str, Any]) -> nn.Module:
    """Build a block of the user's own and try it once, so that a broken interface is told before training."""
    shape = (2, channels, 13, 9)
    try:
        block = found.make(channels, **options)
        training = block.training
        with torch.no_grad():
            output = block.eval()(torch.zeros(shape))
        block.train(training)
    except Exception as error:
        raise UserError(
            f"{found.name} fails for {channels} channels: {type(error).__name__}: {error}"
        ) from None
    if not isinstance(output, torch.Tensor) or output.shape != shape:
        got = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise UserError(
            f"{found.name} maps {shape} to {got}; expected one tensor of the same shape"
        )
    return block
