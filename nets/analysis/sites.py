"""Observing the feature maps at the attention sites."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from nets.analysis.flops import blank_image
from nets.yolo.yolov4_tiny import YOLOv4Tiny


@contextmanager
def observe_sites(
    network: YOLOv4Tiny, callback: Callable[[str, Tensor, Tensor], None]
) -> Iterator[None]:
    """Within the context, a forward pass calls `callback` at every site, with or without a block.

    Args:
        network: the network to observe.
        callback: called with the site's name and its feature map before and after the block;
            without a block both are the same tensor.
    """
    apply_attention = network.apply_attention
    outer = vars(network).get("apply_attention")  # of an observation around this one

    def observed(site: str, x: Tensor) -> Tensor:
        y = apply_attention(site, x)
        callback(site, x, y)
        return y

    network.apply_attention = observed  # type: ignore[method-assign]
    try:
        yield
    finally:
        del network.apply_attention  # restores the method of the class
        if outer is not None:
            network.apply_attention = outer  # type: ignore[method-assign]


@torch.no_grad()
def site_shapes(network: YOLOv4Tiny, size: tuple[int, int]) -> dict[str, tuple[int, int, int]]:
    """Return (channels, height, width) of the feature map at each site, for one image.

    Args:
        network: in evaluation mode.
        size: (height, width) of the image, pixels.
    """
    shapes = {}

    def record(site: str, x: Tensor, y: Tensor) -> None:
        shapes[site] = (x.shape[1], x.shape[2], x.shape[3])

    with observe_sites(network, record):
        network(blank_image(network, size))
    return shapes
