"""Grad-CAM: which positions in an image a prediction depends on.

Selvaraju et al., Grad-CAM, ICCV 2017, arXiv 1610.02391. With A the feature map at a site and S the
logarithm of a prediction's score:

    w_c = mean over H, W of dS/dA_c,   heatmap = relu(sum over c of w_c A_c)

The logarithm scales the gradient by 1 / score everywhere, so the heatmap is proportional to the
one for the score itself; and a confident prediction, whose sigmoids are flat, still has a gradient.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from nets.analysis.sites import observe_sites
from nets.yolo.box_coder import flatten_maps
from nets.yolo.yolov4_tiny import YOLOv4Tiny


@dataclass(frozen=True)
class GradCAM:
    """Grad-CAM of one prediction.

    Attributes:
        heatmaps: site -> float32 `(H, W)`, >= 0, or None if the prediction does not depend on the
            site, which then feeds only other heads.
        box: `(4,)`, xyxy in input pixels.
        score: objectness times class probability, 0..1.
        label: class index.
        stride: of the prediction's head, in input pixels.
    """

    heatmaps: dict[str, Tensor | None]
    box: Tensor
    score: float
    label: int
    stride: int


def grad_cam(
    network: YOLOv4Tiny, image: Tensor, sites: Sequence[str], label: int | None = None
) -> GradCAM:
    """Compute Grad-CAM of the best prediction in an image.

    Args:
        network: in evaluation mode; its parameters receive no gradients.
        image: `(1, 3, H, W)`, RGB, 0..1.
        sites: where to compute a heatmap.
        label: class index of the prediction; None: the best of all classes.
    """
    features: dict[str, Tensor] = {}

    def collect(site: str, _: Tensor, output: Tensor) -> None:
        features[site] = output

    with observe_sites(network, collect), torch.enable_grad():
        maps = network(image.detach().requires_grad_())
        log_score, box, label, stride = _best_prediction(network, maps, label)
        observed = [features[site] for site in sites]
        gradients = torch.autograd.grad(log_score, observed, allow_unused=True)
    heatmaps = {
        site: _heatmap(features[site], gradient)
        for site, gradient in zip(sites, gradients, strict=True)
    }
    return GradCAM(heatmaps, box.detach().cpu(), log_score.exp().item(), label, stride)


def _best_prediction(
    network: YOLOv4Tiny, maps: list[Tensor], label: int | None
) -> tuple[Tensor, Tensor, int, int]:
    """The logarithm of the highest score (of class `label`); its box, class and stride."""
    logits = flatten_maps(maps)[0].float()  # (N, 5+C)
    log_scores = F.logsigmoid(logits[:, 4:5]) + F.logsigmoid(logits[:, 5:])  # (N, C)
    if label is None:
        index, label = divmod(int(log_scores.argmax()), log_scores.shape[1])
    else:
        index = int(log_scores[:, label].argmax())
    boxes, _ = network.coder(maps)
    grid = network.coder.make_grid([(one_map.shape[2], one_map.shape[3]) for one_map in maps])
    return log_scores[index, label], boxes[0, index], label, int(grid.stride[index])


def _heatmap(features: Tensor, gradient: Tensor | None) -> Tensor | None:
    if gradient is None or not gradient.any():
        return None
    weights = gradient.mean((2, 3), keepdim=True)
    return (weights * features).sum(1).relu()[0].detach().float().cpu()
