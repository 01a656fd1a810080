"""Which boxes of a detector stand for which objects, and how an object's box is written beside them.

Boxes are rows x1, y1, x2, y2 in shares of the image. A detector's own boxes (default boxes, anchors) are
`priors`, rows with centre x, centre y, width, height, and what it computes are `deltas`, how far an object is
from a prior: the centre's distance in widths and heights of the prior, the logarithms of width and height,
each divided by a variance (Liu et al., 2016, arXiv:1512.02325, equation 2)."""

import math
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.boxes import area, iou

CENTRE, SIZE = 0.1, 0.2  # variances
GROWTH = math.log(1000 / 16) / SIZE  # the largest delta of a size: no more than that is e to its power


def corners(priors: Tensor) -> Tensor:
    """Centres and sizes (..., 4) -> x1, y1, x2, y2."""
    half = priors[..., 2:] / 2
    return torch.cat([priors[..., :2] - half, priors[..., :2] + half], -1)


def centres(boxes: Tensor) -> Tensor:
    """x1, y1, x2, y2 (..., 4) -> centres and sizes."""
    return torch.cat([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], -1)


def encode(boxes: Tensor, priors: Tensor) -> Tensor:
    """The deltas (..., 4) of boxes that have an area beside priors, one for each."""
    of_boxes = centres(boxes)
    centre = (of_boxes[..., :2] - priors[..., :2]) / (CENTRE * priors[..., 2:])
    return torch.cat([centre, (of_boxes[..., 2:] / priors[..., 2:]).log() / SIZE], -1)


def decode(deltas: Tensor, priors: Tensor) -> Tensor:
    """The boxes (..., 4) with these deltas, as much of them as is in the image."""
    centre = priors[..., :2] + CENTRE * deltas[..., :2] * priors[..., 2:]
    size = priors[..., 2:] * (SIZE * deltas[..., 2:].clamp(max=GROWTH)).exp()
    return corners(torch.cat([centre, size], -1)).clamp(0, 1)


def objects(targets: Mapping[str, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Of each image the boxes (M, 4) and labels (M,) to train on: what is padding, difficult or without an
    area is left out."""
    there = (targets["labels"] >= 0) & ~targets["difficult"] & (area(targets["boxes"]) > 0)
    for boxes, labels, chosen in zip(targets["boxes"], targets["labels"], there, strict=True):
        yield boxes[chosen], labels[chosen]


def match(boxes: Tensor, truths: Tensor, threshold: float, each: bool = True) -> tuple[Tensor, Tensor]:
    """Which of the truths (M, 4) each of the boxes (K, 4) stands for, and its largest overlap with any.

    That is the truth with which it overlaps most, if by `threshold` or more. With `each` every truth has a
    box besides, whatever the overlap: of all pairs the best is taken, then the best of the others.

    Returns:
        int64 (K,), -1 for none, and float (K,).
    """
    overlap = iou(boxes, truths)
    if not len(truths):
        return torch.full((len(boxes),), -1, device=boxes.device), overlap.sum(1)
    largest, index = overlap.max(1)
    index[largest < threshold] = -1
    left = overlap.clone()
    for _ in range(len(truths) if each else 0):
        box, truth = divmod(int(left.argmax()), len(truths))
        if left[box, truth] <= 0:  # what is left overlaps nothing
            break
        index[box] = truth
        left[box] = left[:, truth] = -1
    return index, largest


def assign(index: Tensor, truths: Tensor, labels: Tensor, priors: Tensor) -> tuple[Tensor, Tensor]:
    """What a detector should say of each prior: deltas (K, 4), and the class (K,), 0 for the background.

    Args:
        index: of `match`; labels: of the truths, from 0 on.
    """
    whole = truths.new_tensor([[0.0, 0.0, 1.0, 1.0]])  # where index is -1; nothing is made of these deltas
    classes = torch.cat([labels + 1, labels.new_zeros(1)])[index]
    return encode(torch.cat([truths, whole])[index], priors), classes


def hard_negatives(losses: Tensor, positive: Tensor, ratio: int = 3) -> Tensor:
    """Those of the negatives (N, K) that are trained on, `ratio` for each positive of the image: where the
    loss is largest."""
    order = losses.masked_fill(positive, -1).argsort(dim=1, descending=True, stable=True)
    return (order.argsort(1) < ratio * positive.sum(1, keepdim=True)) & ~positive


def box_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """Smooth L1 of deltas (..., 4), summed."""
    return F.smooth_l1_loss(found, wanted, reduction="sum")
