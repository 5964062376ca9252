"""The training loss, vectorized: no Python loop over images or boxes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nets.losses.assigner import Candidates, find_candidates, keep_aligned
from nets.ops.boxes import complete_iou
from nets.yolo.box_coder import BoxCoder, PredictionGrid, flatten_maps
from utils.core.errors import UserError
from utils.core.schema import LossConfig


@dataclass(frozen=True)
class _Matches:
    """P pairs of a prediction and an object it learns.

    Attributes:
        position: indices of image, object and candidate of each pair, int64 `(P,)` each.
        index: int64 `(P,)`, index of the prediction among the N of its image.
        weight: float32 `(P,)`, 1, or 0 for invalid candidates.
        label: int64 `(P,)`, class of the object.
        logits: float32 `(P, 5+C)`, logits of the prediction.
        iou: float32 `(P,)`, IoU of the predicted box and the object's box.
        ciou: float32 `(P,)`, CIoU of the same boxes.
    """

    position: tuple[Tensor, ...]
    index: Tensor
    weight: Tensor
    label: Tensor
    logits: Tensor
    iou: Tensor
    ciou: Tensor


def _identity(value: Tensor) -> Tensor:
    return value


class YoloLoss(nn.Module):
    """CIoU for boxes, binary cross-entropy for objectness (the target is the IoU) and classes.

    Each part is summed and divided by the number of matches in the batch, so that the balance
    between the parts does not depend on the input size, the batch size or the number of objects
    per image.

    Args:
        coder: the network's box coder.
        config: the weights of the parts and the assignment rule.
        reduce_mean: returns the mean of a scalar tensor over the processes that share a batch; the
            mean of their losses then equals the loss of the whole batch.
        world_size: number of these processes.
        class_weights: float32 `(C,)`, weight of an object in the classification loss, by its class;
            None: 1 for all.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        coder: BoxCoder,
        config: LossConfig,
        reduce_mean: Callable[[Tensor], Tensor] = _identity,
        world_size: int = 1,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.coder = coder
        self.config = config
        self.reduce_mean = reduce_mean
        self.min_matches = 1 / world_size  # per process, so that the total is at least one
        self._grid: PredictionGrid | None = None
        self._grid_key: tuple[object, ...] = ()

    def forward(self, maps: list[Tensor], boxes: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Compute the loss of a batch.

        Args:
            maps: raw maps of the network, `(B, 3*(5+C), h, w)` of each head.
            boxes: float32 `(B, M, 4)`, xyxy in input pixels.
            labels: int64 `(B, M)`, class index, -1 for padding.

        Returns:
            float32 scalars: `loss`, the sum to minimize, its weighted parts `box`, `objectness`,
            `cls`; and `matches`, their number. The parts were divided by it, or by `min_matches`
            if that is more.
        """
        logits = flatten_maps(maps).float()  # (B, N, 5+C)
        map_sizes = [(m.shape[2], m.shape[3]) for m in maps]
        grid = self._cached_grid(map_sizes)
        candidates = find_candidates(boxes, labels >= 0, map_sizes, self.coder, self.config)
        matches = self._match(logits, grid, candidates, boxes, labels)
        if self.config.assign == "aligned":
            alignment = _alignment(matches, candidates)
            candidates = keep_aligned(candidates, alignment, self.config.top_k)
            matches = self._match(logits, grid, candidates, boxes, labels)
        return self._weighted_parts(logits, matches)

    def _cached_grid(self, map_sizes: list[tuple[int, int]]) -> PredictionGrid:
        """Return `coder.make_grid(map_sizes)`, computed again only if the sizes change."""
        key = (*map_sizes, self.coder.anchors.device)
        if self._grid is None or self._grid_key != key:
            self._grid, self._grid_key = self.coder.make_grid(map_sizes), key
        return self._grid

    def _match(
        self,
        logits: Tensor,
        grid: PredictionGrid,
        candidates: Candidates,
        boxes: Tensor,
        labels: Tensor,
    ) -> _Matches:
        image, obj, _ = position = _match_positions(candidates.valid)
        index = candidates.index[position]
        matched_logits = logits[image, index]
        predicted = self.coder.decode_boxes(matched_logits[:, :4], grid[index])
        iou, ciou = complete_iou(predicted, boxes[image, obj])
        return _Matches(
            position=position,
            index=index,
            weight=candidates.valid[position].float(),
            label=labels[image, obj].clamp(min=0),
            logits=matched_logits,
            iou=iou,
            ciou=ciou,
        )

    def _weighted_parts(self, logits: Tensor, matches: _Matches) -> dict[str, Tensor]:
        config = self.config
        matched = self.reduce_mean(matches.weight.sum())
        count = matched.clamp(min=self.min_matches)
        box = ((1 - matches.ciou) * matches.weight).sum() / count
        objectness = F.binary_cross_entropy_with_logits(
            logits[..., 4], _objectness_target(logits, matches), reduction="sum"
        )
        cls_loss = F.binary_cross_entropy_with_logits(
            matches.logits[:, 5:], self._class_target(matches), reduction="none"
        )
        parts = {
            "box": config.box * box,
            "objectness": config.objectness * objectness / count,
            "cls": config.cls * (cls_loss.sum(1) * self._class_weight(matches)).sum() / count,
        }
        loss = sum(parts.values(), torch.zeros((), device=logits.device))
        return {"loss": loss, **parts, "matches": matched}

    def _class_weight(self, matches: _Matches) -> Tensor:
        if self.class_weights is None:
            return matches.weight
        return matches.weight * self.class_weights[matches.label]

    def _class_target(self, matches: _Matches) -> Tensor:
        num_classes = matches.logits.shape[1] - 5
        smooth = self.config.label_smoothing
        return F.one_hot(matches.label, num_classes).float() * (1 - smooth) + smooth / num_classes


def _match_positions(valid: Tensor) -> tuple[Tensor, ...]:
    """Return the image, object and candidate indices of the valid candidates, `(B, M, K)`.

    On a GPU, return those of all candidates: to count the valid ones, the CPU would have to wait.
    """
    if valid.device.type == "cpu":
        return valid.nonzero(as_tuple=True)
    return torch.unravel_index(torch.arange(valid.numel(), device=valid.device), valid.shape)


@torch.no_grad()
def _alignment(matches: _Matches, candidates: Candidates) -> Tensor:
    """Return class score * IoU^6 of each candidate, `(B, M, K)`; 0 for invalid ones."""
    score = matches.logits[:, 5:].gather(1, matches.label[:, None]).squeeze(1).sigmoid()
    alignment = torch.zeros(candidates.valid.shape, device=score.device)
    alignment[matches.position] = score * matches.iou.clamp(min=0).pow(6) * matches.weight
    return alignment


def _objectness_target(logits: Tensor, matches: _Matches) -> Tensor:
    """Return each prediction's highest IoU with an object it learns, `(B, N)`; 0 if none."""
    images, predictions = logits.shape[:2]
    target = torch.zeros(images * predictions, device=logits.device)
    iou = matches.iou.detach().clamp(0, 1) * matches.weight
    target.scatter_reduce_(0, matches.position[0] * predictions + matches.index, iou, "amax")
    return target.view(images, predictions)


def weights_of_classes(
    setting: Literal["none", "balanced"] | Sequence[float],
    counts: Sequence[int],
    device: torch.device,
) -> Tensor | None:
    """Weights for `YoloLoss`.

    Args:
        setting: `none`; `balanced`, inverse to the number of objects with a mean of 1 over all
            objects, as in scikit-learn; or the weights.
        counts: number of training objects of each class, length C.
        device: where the weights are used.

    Returns:
        float32 `(C,)`, or None for `none`. A class without objects gets 1.

    Raises:
        UserError: there are not as many weights as classes.
    """
    if setting == "none":
        return None
    if setting == "balanced":
        numbers = torch.tensor(counts, dtype=torch.float32)
        present = (numbers > 0).sum()
        balanced = numbers.sum() / (present * numbers)
        return torch.where(numbers > 0, balanced, 1.0).to(device)
    if len(setting) != len(counts):
        raise UserError(
            f"loss.class_weights: expected {len(counts)} numbers, one per class, got {len(setting)}"
        )
    return torch.tensor(setting, dtype=torch.float32, device=device)
