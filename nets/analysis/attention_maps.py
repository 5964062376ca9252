"""What the attention blocks of a network attend to in an image."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nets.analysis.sites import observe_sites
from nets.attention import IdentityStart
from nets.yolo.yolov4_tiny import YOLOv4Tiny


@dataclass(frozen=True)
class SiteAttention:
    """What the block at a site attends to in one image.

    Attributes:
        maps: see `AttentionBlock.attention`, without the batch dimension: `channel` `(C,)`,
            `spatial`, `query` and `displacement` `(H, W)`, `branch` `(branches, C)`, `samples`
            `(points, 2)`. A block that
            provides none (a user's block may lack the method) has `change` `(H, W)`: |y - x| / |x|
            over the channels of each position.
        shape: (C, H, W) of the site's feature map.
        position: (row, column) in the feature map that `query` belongs to.
        alpha: gate of a block with `attention.init: identity`, 0 at the start; None if it has no
            gate.
    """

    maps: dict[str, Tensor]
    shape: tuple[int, int, int]
    position: tuple[int, int]
    alpha: float | None


@torch.no_grad()
def attention_maps(
    network: YOLOv4Tiny, image: Tensor, point: tuple[float, float] | None = None
) -> dict[str, SiteAttention]:
    """Compute the attention maps of every block.

    Args:
        network: in evaluation mode.
        image: `(1, 3, H, W)`, RGB, 0..1.
        point: (x, y) in input pixels, for blocks whose attention depends on the position; None:
            the center.

    Returns:
        An entry for each site with a block, in the order of the forward pass.
    """
    height, width = image.shape[2:]
    x, y = point or (width / 2, height / 2)
    sites = {}

    def collect(site: str, features: Tensor, output: Tensor) -> None:
        if site not in network.attention:
            return
        block = network.attention[site]
        channels, rows, columns = features.shape[1:]
        row = min(max(int(y / height * rows), 0), rows - 1)
        column = min(max(int(x / width * columns), 0), columns - 1)
        sites[site] = SiteAttention(
            maps=_block_maps(block, features, output, (row, column)),
            shape=(channels, rows, columns),
            position=(row, column),
            alpha=float(block.alpha) if isinstance(block, IdentityStart) else None,
        )

    with observe_sites(network, collect):
        network(image)
    return sites


def _block_maps(
    block: nn.Module, x: Tensor, y: Tensor, position: tuple[int, int]
) -> dict[str, Tensor]:
    inner = block.block if isinstance(block, IdentityStart) else block
    try:
        maps = inner.attention(x, position)  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return {"change": ((y - x).norm(dim=1) / x.norm(dim=1).clamp_min(1e-12))[0].float().cpu()}
    return {kind: values[0].float().cpu() for kind, values in maps.items()}
