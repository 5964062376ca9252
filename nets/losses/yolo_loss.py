"""The training loss, vectorized: no Python loop over images or boxes."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.losses.assigner import Candidates, candidates, keep_aligned
from nets.yolo.box_coder import BoxCoder, Cells, flatten_maps
from utils.core.schema import LossConfig

EPS = 1e-7
MIN_SIDE = 1e-2  # pixels; keeps the aspect term's gradient finite


@dataclass(frozen=True)
class _Matches:
    """P predictions that learn an object; `weight` is 0 for padding. All `(P,)` but `raw` `(P, 5+C)`."""

    picture: Tensor
    index: Tensor
    weight: Tensor
    label: Tensor
    raw: Tensor
    iou: Tensor
    ciou: Tensor
    position: tuple[Tensor, ...]


class YoloLoss(nn.Module):
    """CIoU for boxes, binary cross-entropy for objectness (target: the IoU reached) and for classes.

    Each part is summed and divided by the number of matches of the batch, so that the balance of the parts does not
    depend on input size, batch size or objects in a picture.
    CIoU: Zheng et al., Distance-IoU Loss, AAAI 2020, arXiv 1911.08287.

    Args:
        mean: of a number, over the `parts` processes that each see a part of the batch: the mean of their losses is
            then the loss of the whole batch.
    """

    def __init__(
        self,
        coder: BoxCoder,
        config: LossConfig,
        mean: Callable[[Tensor], Tensor] = lambda own: own,
        parts: int = 1,
    ) -> None:
        super().__init__()
        self.coder = coder
        self.config = config
        self.mean = mean
        self.least = 1 / parts  # matches a process, where there is none at all
        self._cells: tuple[tuple[object, ...], Cells] | None = None

    def forward(self, maps: list[Tensor], boxes: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Loss parts as float32 scalars: `loss` (what to minimize), `box`, `objectness`, `cls` (weighted).

        Args:
            maps: raw maps of the network.
            boxes: float32 `(B, M, 4)`, xyxy in input pixels; labels: int64 `(B, M)`, -1 where there is no object.
        """
        raw = flatten_maps(maps).float()
        shapes = [(m.shape[2], m.shape[3]) for m in maps]
        cells = self._layout(shapes)
        found = candidates(boxes, labels >= 0, shapes, self.coder, self.config)
        matches = self._match(raw, cells, found, boxes, labels)
        if self.config.assign == "aligned":
            found = keep_aligned(found, self._alignment(matches, found), self.config.top_k)
            matches = self._match(raw, cells, found, boxes, labels)
        return self._parts(raw, matches)

    def _layout(self, shapes: list[tuple[int, int]]) -> Cells:
        """`coder.cells`, made anew only when the maps change their size."""
        key = (*shapes, self.coder.anchors.device)
        if self._cells is None or self._cells[0] != key:
            self._cells = key, self.coder.cells(shapes)
        return self._cells[1]

    def _match(
        self, raw: Tensor, cells: Cells, found: Candidates, boxes: Tensor, labels: Tensor
    ) -> _Matches:
        picture, obj, rank = _positions(found.valid)
        index = found.index[picture, obj, rank]
        picked = raw[picture, index]
        at = Cells(cells.grid[index], cells.anchor[index], cells.stride[index])
        iou, ciou = paired_iou(self.coder.boxes(picked[:, :4], at), boxes[picture, obj])
        weight = found.valid[picture, obj, rank].float()
        return _Matches(
            picture,
            index,
            weight,
            labels[picture, obj].clamp(min=0),
            picked,
            iou,
            ciou,
            (picture, obj, rank),
        )

    def _alignment(self, matches: _Matches, found: Candidates) -> Tensor:
        with torch.no_grad():
            score = matches.raw[:, 5:].gather(1, matches.label[:, None]).squeeze(1).sigmoid()
            alignment = torch.zeros(found.valid.shape, device=score.device)
            alignment[matches.position] = score * matches.iou.clamp(min=0).pow(6) * matches.weight
        return alignment

    def _parts(self, raw: Tensor, matches: _Matches) -> dict[str, Tensor]:
        config = self.config
        count = matches.weight.sum()
        total = self.mean(count).clamp(min=self.least)
        box = ((1 - matches.ciou) * matches.weight).sum() / total
        objectness = F.binary_cross_entropy_with_logits(
            raw[..., 4], self._objectness_target(raw, matches), reduction="sum"
        )
        cls_loss = F.binary_cross_entropy_with_logits(
            matches.raw[:, 5:], self._class_target(matches, raw.shape[2] - 5), reduction="none"
        )
        parts = {
            "box": config.box * box,
            "objectness": config.objectness * objectness / total,
            "cls": config.cls * (cls_loss.sum(1) * matches.weight).sum() / total,
        }
        return {"loss": sum(parts.values(), torch.zeros((), device=raw.device)), **parts}

    @staticmethod
    def _objectness_target(raw: Tensor, matches: _Matches) -> Tensor:
        """The IoU each matched prediction reaches; where two objects share one, the higher."""
        target = torch.zeros(raw.shape[0] * raw.shape[1], device=raw.device)
        reached = matches.iou.detach().clamp(0, 1) * matches.weight
        target.scatter_reduce_(0, matches.picture * raw.shape[1] + matches.index, reached, "amax")
        return target.view(raw.shape[:2])

    def _class_target(self, matches: _Matches, num_classes: int) -> Tensor:
        smooth = self.config.label_smoothing
        return F.one_hot(matches.label, num_classes).float() * (1 - smooth) + smooth / num_classes


def _positions(valid: Tensor) -> tuple[Tensor, ...]:
    """Indices of the valid candidates; on a GPU of all of them, since counting would make the CPU wait."""
    if valid.device.type == "cpu":
        return valid.nonzero(as_tuple=True)
    return torch.unravel_index(torch.arange(valid.numel(), device=valid.device), valid.shape)


def paired_iou(boxes: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and CIoU of `boxes[i]` with `targets[i]`; `(P, 4)` xyxy float32 -> two `(P,)`. Finite for empty boxes."""
    size, target_size = ((b[:, 2:] - b[:, :2]).clamp(min=MIN_SIDE) for b in (boxes, targets))
    overlap = (
        torch.minimum(boxes[:, 2:], targets[:, 2:]) - torch.maximum(boxes[:, :2], targets[:, :2])
    ).clamp(min=0)
    intersection = overlap.prod(1)
    iou = intersection / (size.prod(1) + target_size.prod(1) - intersection + EPS)
    hull = torch.maximum(boxes[:, 2:], targets[:, 2:]) - torch.minimum(boxes[:, :2], targets[:, :2])
    offset = (boxes[:, :2] + boxes[:, 2:] - targets[:, :2] - targets[:, 2:]) / 2
    distance = offset.square().sum(1) / (hull.square().sum(1) + EPS)
    angle = torch.atan2(target_size[:, 0], target_size[:, 1]) - torch.atan2(size[:, 0], size[:, 1])
    aspect = 4 / math.pi**2 * angle.square()
    with torch.no_grad():
        trade_off = aspect / (1 - iou + aspect + EPS)
    return iou, iou - distance - trade_off * aspect
