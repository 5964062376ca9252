"""What a network attends to in one image: the maps of its attention blocks, and class activation at any site.

Class activation: Selvaraju et al., Grad-CAM, ICCV 2017, arXiv 1610.02391. With A the map at a site and S the logarithm
of a prediction's score:

    w_c = mean over H, W of dS/dA_c,   heat = relu(sum over c of w_c A_c)

The logarithm scales the gradient by 1 / score, the same for all of A: the heat's form is that of the score itself, and
a confident prediction, whose sigmoids are flat, still has a gradient.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.attention.layers import IdentityStart, Maps
from nets.yolo.box_coder import flatten_maps
from nets.yolo.yolov4_tiny import SITES, YOLOv4Tiny


@dataclass(frozen=True)
class Attended:
    """What the block at a site attends to in one picture.

    Attributes:
        maps: see `AttentionBlock.attention`, without the image's axis: `channel` `(C,)`, `spatial`, `query` and
            `displacement` `(H, W)`, `branch` `(branches, C)`. A block that shows none of these (a user's own may lack
            the method) has `change` `(H, W)`: |y - x| / |x| over the channels of every position.
        shape: (C, H, W) of the site's map. point: the position (row, column) that `query` belongs to.
        alpha: how far a block of `attention.init: identity` has opened; none where there is no such gate.
    """

    maps: Maps
    shape: tuple[int, int, int]
    point: tuple[int, int]
    alpha: float | None


@dataclass(frozen=True)
class Activation:
    """Class activation for one prediction.

    Attributes:
        heat: site -> `(H, W)` >= 0, or None where the prediction does not depend on the site.
        box: xyxy in input pixels. score: objectness times class probability. label: class index.
    """

    heat: dict[str, Tensor | None]
    box: Tensor
    score: float
    label: int


@contextmanager
def every_site(network: YOLOv4Tiny) -> Iterator[nn.ModuleDict]:
    """Put `nn.Identity` at the sites that carry no block, so that hooks can reach every site; taken out at the end."""
    added = [site for site in SITES if site not in network.attention]
    for site in added:
        network.attention[site] = nn.Identity()
    try:
        yield network.attention
    finally:
        for site in added:
            del network.attention[site]


@torch.no_grad()
def attended(
    network: YOLOv4Tiny, images: Tensor, point: tuple[float, float] | None = None
) -> dict[str, Attended]:
    """What every block attends to.

    Args:
        network: in evaluation mode. images: one image `(1, 3, H, W)`.
        point: (x, y) in input pixels, for blocks whose attention belongs to a position; none: the middle.

    Returns:
        An entry a site with a block, in the order of the forward pass.
    """
    x, y = point or (images.shape[3] / 2, images.shape[2] / 2)
    inputs: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(site: str):
        return lambda _, args, output: inputs.update({site: (args[0], output)})

    handles = [block.register_forward_hook(keep(site)) for site, block in network.attention.items()]
    try:
        network(images)
    finally:
        for handle in handles:
            handle.remove()
    seen = {}
    for site, (features, output) in inputs.items():
        channels, height, width = features.shape[1:]
        row, column = int(y / images.shape[2] * height), int(x / images.shape[3] * width)
        place = min(max(row, 0), height - 1), min(max(column, 0), width - 1)
        block = network.attention[site]
        maps = _maps(block, features, output, place)
        alpha = float(block.alpha) if isinstance(block, IdentityStart) else None
        seen[site] = Attended(maps, (channels, height, width), place, alpha)
    return seen


def _maps(block: nn.Module, x: Tensor, y: Tensor, place: tuple[int, int]) -> Maps:
    inner = block.block if isinstance(block, IdentityStart) else block
    try:
        maps = inner.attention(x, place)  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return {"change": ((y - x).norm(dim=1) / x.norm(dim=1).clamp_min(1e-12))[0].float().cpu()}
    return {kind: values[0].float().cpu() for kind, values in maps.items()}


def activation(
    network: YOLOv4Tiny, images: Tensor, sites: Sequence[str], label: int | None = None
) -> Activation:
    """Class activation at `sites` for the best prediction of class `label`, or of all classes where it is None.

    Args:
        network: in evaluation mode; gradients of its parameters are not touched. images: one image `(1, 3, H, W)`.
    """
    maps: dict[str, Tensor] = {}
    with every_site(network) as blocks, torch.enable_grad():
        handles = [
            blocks[site].register_forward_hook(
                lambda _, args, output, site=site: maps.update({site: output})
            )
            for site in sites
        ]
        try:
            raw = network(images.detach().requires_grad_())
        finally:
            for handle in handles:
                handle.remove()
        logs, box, label = _best(network, raw, label)
        gradients = torch.autograd.grad(logs, [maps[site] for site in sites], allow_unused=True)
    heat = {
        site: _heat(maps[site], gradient) for site, gradient in zip(sites, gradients, strict=True)
    }
    return Activation(heat, box.detach().cpu(), logs.exp().item(), label)


def _best(network: YOLOv4Tiny, raw: list[Tensor], label: int | None) -> tuple[Tensor, Tensor, int]:
    """Logarithm of the highest score (of class `label`), its box and its class."""
    flat = flatten_maps(raw)[0].float()
    logs = F.logsigmoid(flat[:, 4:5]) + F.logsigmoid(flat[:, 5:])
    candidates = logs if label is None else logs[:, label : label + 1]
    index, column = divmod(int(candidates.argmax()), candidates.shape[1])
    boxes, _ = network.coder(raw)
    return candidates[index, column], boxes[0, index], column if label is None else label


def _heat(features: Tensor, gradient: Tensor | None) -> Tensor | None:
    if gradient is None or not gradient.any():
        return None
    weights = gradient.mean((2, 3), keepdim=True)
    return (weights * features).sum(1).relu()[0].detach().float().cpu()
