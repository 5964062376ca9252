"""Raw maps -> boxes and scores; non-maximum suppression."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import nms

STRIDES = (32, 16)  # of the two heads, in the order of the network's outputs
MAX_LOG_SIZE = 10.0  # exp(10) anchors: beyond any picture, and finite when squared in float32
VOTERS = 1000  # candidates of a picture that vote on where kept boxes lie, best first
MANY = 2000  # candidates from which on classes are taken one by one on a processor
ROWS = 100  # boxes that are voted on at once: larger temporaries leave the cache and cost ten times as much


@dataclass(frozen=True)
class Cells:
    """Where each of the N predictions of a picture sits: `grid` (N, 2) cell x, y; `anchor` (N, 2); `stride` (N, 1)."""

    grid: Tensor
    anchor: Tensor
    stride: Tensor


class BoxCoder(nn.Module):
    """The box parametrisation of Darknet's `[yolo]` layer, both kinds.

    With grid cell g, stride s, anchor (p_w, p_h) and stretch k = `scale_x_y`:

        centre = (k * sigmoid(t_xy) - (k - 1) / 2 + g) * s
        size   = anchor * exp(t_wh)               new_coords = false, k = 1.05 (what pretrained weights need)
        size   = anchor * (2 * sigmoid(t_wh))^2   new_coords = true,  k = 2 (bounded by 4 anchors)

    Args:
        anchors: (width, height) in input pixels. masks: for each head (strides 32, 16) its three anchor indices.
    """

    anchors: Tensor

    def __init__(
        self,
        anchors: Sequence[Sequence[float]],
        masks: Sequence[Sequence[int]],
        new_coords: bool = True,
        scale_x_y: float | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("anchors", torch.tensor(anchors, dtype=torch.float32), persistent=False)
        self.masks = tuple(tuple(mask) for mask in masks)
        self.new_coords = new_coords
        self.scale_x_y = scale_x_y or (2.0 if new_coords else 1.05)

    def cells(self, shapes: Sequence[tuple[int, int]]) -> Cells:
        """The layout for maps of the given (height, width): head by head, anchor by anchor, row by row."""
        parts = [self._head_cells(shape, head) for head, shape in enumerate(shapes)]
        grid, anchor, stride = (torch.cat(column) for column in zip(*parts, strict=True))
        return Cells(grid, anchor, stride)

    def _head_cells(self, shape: tuple[int, int], head: int) -> tuple[Tensor, Tensor, Tensor]:
        height, width = shape
        device = self.anchors.device
        y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
        mask = self.masks[head]
        grid = torch.stack([x, y], -1).view(1, -1, 2).expand(len(mask), -1, -1).reshape(-1, 2).float()
        anchor = self.anchors[list(mask)].repeat_interleave(height * width, 0)
        return grid, anchor, torch.full((len(grid), 1), float(STRIDES[head]), device=device)

    def boxes(self, raw: Tensor, cells: Cells) -> Tensor:
        """Logits `(..., 4)` and the cells they belong to -> float32 xyxy boxes in input pixels, `(..., 4)`."""
        raw = raw.float()
        stretch = self.scale_x_y
        centre = (raw[..., :2].sigmoid() * stretch - (stretch - 1) / 2 + cells.grid) * cells.stride
        if self.new_coords:
            size = (2 * raw[..., 2:4].sigmoid()).square() * cells.anchor
        else:
            size = raw[..., 2:4].clamp(max=MAX_LOG_SIZE).exp() * cells.anchor
        return torch.cat([centre - size / 2, centre + size / 2], -1)

    def forward(self, maps: Sequence[Tensor], cells: Cells | None = None) -> tuple[Tensor, Tensor]:
        """Raw maps -> boxes `(B, N, 4)`, xyxy input pixels, and scores `(B, N, C)`, objectness times class, 0..1.

        `cells` is `self.cells` of the maps' sizes, where it is made once for many calls.
        """
        raw = flatten_maps(maps)
        boxes = self.boxes(raw[..., :4], cells or self.cells([(m.shape[2], m.shape[3]) for m in maps]))
        return boxes, raw[..., 4:5].float().sigmoid() * raw[..., 5:].float().sigmoid()


def flatten_maps(maps: Sequence[Tensor]) -> Tensor:
    """Maps `(B, 3*(5+C), h, w)` of all heads -> `(B, N, 5+C)`, in the order of `BoxCoder.cells`."""
    flat = [m.unflatten(1, (3, -1)).permute(0, 1, 3, 4, 2).flatten(1, 3) for m in maps]
    return torch.cat(flat, 1)


@torch.no_grad()
def select(
    boxes: Tensor, scores: Tensor, score: float, nms_iou: float, max_detections: int, merge_iou: float = 1.0
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Greedy NMS class by class, then box voting; a box may be kept for several classes.

    Args:
        boxes: `(B, N, 4)` xyxy. scores: `(B, N, C)`, 0..1.
        score: lowest score kept. nms_iou: IoU above which the weaker box of the same class goes.
        max_detections: boxes kept a picture.
        merge_iou: each box kept becomes the mean of the boxes of its class that overlap it by more than this, weighted
            by score and overlap; 1: it stays as it is. The `VOTERS` best candidates of a picture have a vote.

    Returns:
        For each picture boxes `(n, 4)`, scores `(n,)`, labels `(n,)` int64, best first.
    """
    return [_select_one(b, s, score, nms_iou, max_detections, merge_iou) for b, s in zip(boxes, scores, strict=True)]


def _select_one(
    boxes: Tensor, scores: Tensor, score: float, nms_iou: float, max_detections: int, merge_iou: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Greedy NMS never looks back: what it keeps of the best candidates stays kept whatever follows. So the best are
    tried first, and more only while they give too few: the result is that of all candidates, however many."""
    flat = scores.flatten()
    found = (flat > score).nonzero().squeeze(1)
    candidates = flat[found]
    taken = max(VOTERS, 2 * max_detections)
    while True:
        values, order = candidates.topk(min(taken, len(found)))
        index = found[order]
        near, labels = boxes[index // scores.shape[1]], index % scores.shape[1]
        keep = _nms_by_class(near, values, labels, nms_iou)
        if len(keep) >= max_detections or taken >= len(found):
            break
        taken *= 16
    keep = keep[:max_detections]
    kept = _vote(near, values, labels, keep, merge_iou) if merge_iou < 1 else near[keep]
    return kept, values[keep], labels[keep]


def _vote(boxes: Tensor, scores: Tensor, labels: Tensor, keep: Tensor, merge_iou: float) -> Tensor:
    """Box voting (Gidaris and Komodakis, ICCV 2015, arXiv 1505.01749), with weights score * IoU^2.

    The neighbours that NMS drops see the same object from other cells and anchors: their mean lies closer to it.
    """
    near, alike, weight = boxes[:VOTERS], labels[:VOTERS], scores[:VOTERS]
    parts = []
    for rows in keep.split(ROWS):
        overlap = _overlaps(boxes[rows], near)
        votes = overlap.square().mul_(weight).mul_((overlap > merge_iou) & (labels[rows, None] == alike))
        votes.masked_fill_(rows[:, None] == torch.arange(len(near), device=rows.device), 0.0)
        own = scores[rows, None]  # of the box for itself: score * 1^2, also where it is empty
        parts.append((votes @ near + own * boxes[rows]) / (votes.sum(1, keepdim=True) + own))
    return torch.cat(parts) if parts else boxes[keep]


def _overlaps(first: Tensor, second: Tensor) -> Tensor:
    """IoU `(n, m)` of `(n, 4)` and `(m, 4)`, 0 of two empty boxes. Column by column and in place: four times as fast
    here as `torchvision.ops.box_iou`, whose innermost dimension has two elements."""
    a, b = first.T[:, :, None].contiguous(), second.T.contiguous()
    width = torch.minimum(a[2], b[2]).sub_(torch.maximum(a[0], b[0])).clamp_(min=0)
    height = torch.minimum(a[3], b[3]).sub_(torch.maximum(a[1], b[1])).clamp_(min=0)
    both = width.mul_(height)
    union = ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])).sub_(both)
    return both.div_(union).nan_to_num_(0.0)


def _nms_by_class(boxes: Tensor, scores: Tensor, labels: Tensor, nms_iou: float) -> Tensor:
    """Indices kept, best first, of boxes that come best first. Classes are told apart by shifting each one's boxes
    beyond the largest coordinate: that needs coordinates from 0 on, and more digits than float32 has where one box is
    huge. A processor compares each box kept with all that follow: of many, it takes the classes one by one."""
    if not len(boxes):
        return labels
    if len(boxes) > MANY and boxes.device.type == "cpu":
        classes = labels.argsort(stable=True).split(labels.bincount().tolist())
        keep = [own[nms(boxes[own].double(), scores[own].double(), nms_iou)] for own in classes]
        return torch.cat(keep).sort().values
    exact = boxes if boxes.device.type == "mps" else boxes.double()  # MPS has no float64
    low, high = exact.aminmax()
    return nms(exact - low + labels[:, None] * (high - low + 1), scores.to(exact.dtype), nms_iou)
