"""Attention blocks: every one maps `(B, C, H, W)` to `(B, C, H, W)` for any H and W.

`names()` lists them, `build("cbam", channels)` makes one. A new block is one new file in this folder: a class
`Block(channels, *, option=default)` under `@register`; nothing else changes. A block outside the project is named
`package.module:Class`; `python -m nets.attention.check package.module:Class` tests it as the project's own are tested.
"""

from nets.attention.layers import IdentityStart
from nets.attention.registry import Spec, build, describe, entry, names, parse_phi, register

__all__ = ["IdentityStart", "Spec", "build", "describe", "entry", "names", "parse_phi", "register"]
