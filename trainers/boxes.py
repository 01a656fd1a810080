"""The geometry of boxes, as rows x1, y1, x2, y2 of floats in any unit.

A box whose x2 is not above its x1, or whose y2 is not above its y1, has no area, and neither has one with a
coordinate that is no number."""

import torch
from torch import Tensor


def area(boxes: Tensor) -> Tensor:
    """(..., 4) -> (...): 0 for a box that is empty or inverted, NaN for one with NaN."""
    return _product(boxes[..., 2:] - boxes[..., :2])


def clip(boxes: Tensor, width: float = 1, height: float = 1) -> Tensor:
    """The part within an image, which starts at 0."""
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of each of a (..., A, 4) with each of b (..., B, 4): (..., A, B) from 0 to 1.

    It is 0 where one of them has no area.
    """
    first, second = a.unsqueeze(-2), b.unsqueeze(-3)
    both = _product(
        torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])
    )
    either = area(first) + area(second) - both
    return torch.where(either > 0, both / either, 0)


def nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Which boxes stay of those that overlap: int64 indices, in the order of falling scores.

    The best stays, those go whose overlap with it is more than `threshold`, and so on with the best of the
    rest. Of equal scores the earlier comes first. What has no area, or a score that is no number, never
    stays.

    Args:
        boxes: (K, 4); scores: (K,).
    """
    order = scores.argsort(descending=True, stable=True)
    order = order[((area(boxes) > 0) & ~scores.isnan())[order]]
    ranked = boxes[order]
    return order[survivors(iou(ranked, ranked) > threshold)]


def survivors(overlapping: Tensor) -> Tensor:
    """Which boxes stay, bool (..., K), of whether each two overlap too much, bool (..., K, K), the better box
    first.

    All are decided at once, from what was decided in the round before: one more of the first is right after
    each, and nothing changes any more as soon as all are.
    """
    beaten = overlapping.triu(1)
    stays = beaten.new_ones(beaten.shape[:-1])
    while True:
        before, stays = stays, ~(beaten & stays.unsqueeze(-1)).any(-2)
        if stays.is_meta or torch.equal(before, stays):
            return stays


def _product(sides: Tensor) -> Tensor:
    wide, high = sides.clamp(min=0).unbind(-1)
    return wide * high
