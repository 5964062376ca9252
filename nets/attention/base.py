"""Base classes of attention blocks, and the wrapper that makes a block start as the identity.

Shapes: B images, C channels, H x W positions, N = H * W.
"""

from typing import TypedDict

import torch
from torch import Tensor, nn

from nets.attention.layers import fold_groups


class AttentionMaps(TypedDict, total=False):
    """What a block attends to; a block returns only the keys that apply to it.

    Attributes:
        channel: weight of each channel, `(B, C)`.
        spatial: weight of each position, `(B, H, W)`.
        query: weights that one query position assigns to all positions, `(B, H, W)`.
        branch: weights of parallel branches, `(B, branches, C)`.
        displacement: how far a warp moves each position, in cells of the map, `(B, H, W)`.
        samples: points that all queries read, x and y as shares of the map's width and height,
            `(B, points, 2)`.
    """

    channel: Tensor
    spatial: Tensor
    query: Tensor
    branch: Tensor
    displacement: Tensor
    samples: Tensor


class AttentionBlock(nn.Module):
    """Base of the blocks in `nets.attention.blocks`; your own blocks need not derive from it.

    Attributes:
        identity_at_start: a new block returns its input bit for bit, because a gate, a last layer
            or a warp starts neutral.
        zero_gradient: names of parameters that never receive a gradient because a later step
            cancels them, such as the bias of the keys under a softmax over the keys.
    """

    identity_at_start: bool = False
    zero_gradient: tuple[str, ...] = ()

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        """Compute what the block attends to, for heatmaps.

        Args:
            x: input features, `(B, C, H, W)`.
            point: position (row, column) of the `query` map; None: the center.

        Raises:
            IndexError: `point` lies outside the map.
        """
        raise NotImplementedError(f"{type(self).__name__} provides no attention maps")


class Gate(AttentionBlock):
    """`y = x * gate(x)`; a subclass computes `gate`."""

    def gate(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class ChannelGate(Gate):
    """A gate with one weight per channel, `(B, C, 1, 1)`."""

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        return {"channel": self.gate(x).flatten(1)}


class FeatureGate(Gate):
    """A gate with one weight per element, `(B, C, H, W)`; its maps are means of these weights."""

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        gate = self.gate(x)
        return {"channel": gate.mean((2, 3)), "spatial": gate.mean(1)}


class CoordinateGate(FeatureGate):
    """A gate of rows times a gate of columns.

    A subclass implements `gates`, which returns those of the rows `(B, C, H, 1)` and of the columns
    `(B, C, 1, W)`.
    """

    def gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def gate(self, x: Tensor) -> Tensor:
        rows, columns = self.gates(x)
        return rows * columns

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.gates(x)
        return x * rows * columns


class DualGate(AttentionBlock):
    """A channel gate `(B, C, 1, 1)` and a spatial gate `(B, 1, H, W)`; a subclass combines them."""

    def gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        channel, spatial = self.gates(x)
        return {"channel": channel.flatten(1), "spatial": spatial[:, 0]}


class GroupGate(AttentionBlock):
    """A gate with one weight per position and group of channels; its map is the mean of the groups.

    A subclass sets `groups` and implements `group_gate`, from `(B * groups, C / groups, H, W)` to
    `(B * groups, 1, H, W)`.
    """

    groups: int

    def group_gate(self, folded: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        folded = fold_groups(x, self.groups)
        return (folded * self.group_gate(folded)).reshape_as(x)

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        gate = self.group_gate(fold_groups(x, self.groups))
        return {"spatial": gate.unflatten(0, (-1, self.groups)).mean((1, 2))}


class BranchAttention(AttentionBlock):
    """A weighted sum of parallel branches.

    A subclass implements `branches`, which returns their features `(B, branches, C, H, W)` and
    weights `(B, branches, C)`.
    """

    def branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def weighted_branches(self, x: Tensor) -> Tensor:
        features, weights = self.branches(x)
        return features * weights.to(features.dtype)[..., None, None]

    def forward(self, x: Tensor) -> Tensor:
        return self.weighted_branches(x).sum(1)

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        _, weights = self.branches(x)
        return {"branch": weights}


class ResidualAttention(AttentionBlock):
    """`y = x + attended(x)`; a subclass computes `attended`.

    Args:
        residual: add x, as a block of a network does; otherwise y = attended(x), as the layer in
            the paper.
    """

    def __init__(self, residual: bool) -> None:
        super().__init__()
        self.residual = residual

    def attended(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        y = self.attended(x)
        return x + y if self.residual else y


class IdentityStart(nn.Module):
    """`y = x + alpha * (block(x) - x)` with a learnable `alpha` that starts at 0.

    A pretrained network keeps its outputs. Do not wrap a block that already starts as the
    identity: the gradients of alpha and of the block's gate would both stay zero. `build` takes
    care of this.

    Args:
        block: the block to wrap.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.alpha = nn.Parameter(torch.zeros(()))
        self.zero_gradient = tuple(f"block.{name}" for name in getattr(block, "zero_gradient", ()))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.alpha * (self.block(x) - x)

    def attention(self, x: Tensor, point: tuple[int, int] | None = None) -> AttentionMaps:
        """Return the maps of the wrapped block, see `AttentionBlock.attention`."""
        return self.block.attention(x, point)  # type: ignore[operator]
