"""Attention blocks: each maps `(B, C, H, W)` to `(B, C, H, W)`, for any H and W.

`names()` lists them, `build("cbam", channels)` builds one. To add a block, add a file to `blocks`;
see CONTRIBUTING.md. A block outside the project is named `package.module:Class`, and
`python -m nets.attention.check package.module:Class` checks it.
"""

from nets.attention.base import IdentityStart
from nets.attention.registry import (
    BlockInfo,
    Spec,
    block_info,
    build,
    describe,
    is_user_block,
    names,
    parse_phi,
    register,
)

__all__ = [
    "BlockInfo",
    "IdentityStart",
    "Spec",
    "block_info",
    "build",
    "describe",
    "is_user_block",
    "names",
    "parse_phi",
    "register",
]
