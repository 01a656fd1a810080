"""What lies between the two networks of Faster R-CNN, and behind the second: `trainers.matching` and
`trainers.proposals` in numpy, for one image.

Boxes are rows x1, y1, x2, y2 in shares of the image, anchors rows with centre and size. All is float32."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

CENTRE, SIZE = np.float32(0.1), np.float32(0.2)  # variances
GROWTH = np.float32(math.log(1000 / 16) / 0.2)  # the largest delta of a size
BINS, SAMPLES = 7, 2  # in each direction, of what an RoI's features are, and of each of these


def anchors(height: int, width: int, scales: Sequence[float], ratios: Sequence[float]) -> np.ndarray:
    """(height * width * boxes, 4), centres and sizes, row by row.

    Args:
        height, width: of the map; scales: roots of the boxes' areas; ratios: of height to width.
    """
    sizes = np.array([(scale / ratio**0.5, scale * ratio**0.5) for scale in scales for ratio in ratios])
    found = np.empty((height, width, len(sizes), 4))
    found[..., 0] = ((np.arange(width) + 0.5) / width)[:, None]
    found[..., 1] = ((np.arange(height) + 0.5) / height)[:, None, None]
    found[..., 2:] = sizes
    return found.reshape(-1, 4).astype(np.float32)


def centres(boxes: np.ndarray) -> np.ndarray:
    """x1, y1, x2, y2 (..., 4) -> centres and sizes."""
    return np.concatenate([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], -1)


def decode(deltas: np.ndarray, priors: np.ndarray) -> np.ndarray:
    """The boxes (..., 4) with these deltas from priors, as much of them as is in the image."""
    centre = priors[..., :2] + CENTRE * deltas[..., :2] * priors[..., 2:]
    half = priors[..., 2:] * np.exp(SIZE * np.minimum(deltas[..., 2:], GROWTH)) / 2
    return np.clip(np.concatenate([centre - half, centre + half], -1), 0, 1)


def area(boxes: np.ndarray) -> np.ndarray:
    """(..., 4) -> (...): 0 for a box that is empty or inverted."""
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of (A, 4) and (B, 4): (A, B), 0 where a box has no area."""
    first, second = a[:, None], b[None]
    low, high = np.maximum(first[..., :2], second[..., :2]), np.minimum(first[..., 2:], second[..., 2:])
    both = area(np.concatenate([low, high], -1))
    either = area(first) + area(second) - both
    return np.divide(both, either, out=np.zeros_like(both), where=either > 0)


def survivors(boxes: np.ndarray, threshold: float) -> np.ndarray:
    """Which boxes (K, 4) stay, the better first, where no two overlap by more than `threshold`: bool (K,).

    What has no area never stays.
    """
    stays = area(boxes) > 0
    beats = np.triu(iou(boxes, boxes) > threshold, 1)
    for index in range(len(boxes)):
        if stays[index]:
            stays[beats[index]] = False
    return stays


def nms(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Indices of the boxes (K, 4) that stay of those that overlap by more, by falling scores (K,)."""
    order = np.argsort(-scores, kind="stable")
    order = order[~np.isnan(scores[order])]
    return order[survivors(boxes[order], threshold)]


def propose(
    objectness: np.ndarray, deltas: np.ndarray, priors: np.ndarray, before: int, after: int, overlap: float
) -> np.ndarray:
    """Boxes (after, 4) that may hold an object.

    Of the `before` anchors with the best scores come first those that stay where no two overlap by more than
    `overlap`, then the others, both by falling score. So there are always as many.

    Args:
        objectness: (A,); deltas: (A, 4); priors: (A, 4), A at least `after`.
    """
    order = np.argsort(-objectness, kind="stable")[:before]
    boxes = decode(deltas[order], priors[order])
    return boxes[np.argsort(~survivors(boxes, overlap), kind="stable")[:after]]


def roi_align(features: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """What the map (C, H, W) has in the boxes (P, 4), in 7x7 bins: (P, C, 7, 7).

    A bin is the mean of 2x2 points, a point is interpolated between the four values around it. A value lies
    in the middle of its place on the map; a point more than one place outside is 0.
    """
    rows = _weights(boxes[:, 1], boxes[:, 3], features.shape[1])
    columns = _weights(boxes[:, 0], boxes[:, 2], features.shape[2])
    in_rows = np.tensordot(rows, features, ([2], [1]))  # (P, 7, C, W)
    return np.ascontiguousarray(np.matmul(in_rows.swapaxes(1, 2), columns.swapaxes(1, 2)[:, None]))


def _weights(first: np.ndarray, last: np.ndarray, extent: int) -> np.ndarray:
    """How much each bin between `first` and `last` (P,) has of each place: (P, 7, extent)."""
    share = ((np.arange(BINS * SAMPLES) + 0.5) / (BINS * SAMPLES)).astype(np.float32)
    points = (first[:, None] + (last - first)[:, None] * share) * np.float32(extent) - np.float32(0.5)
    inside = (points >= -1) & (points <= extent)
    places = np.arange(extent, dtype=np.float32)
    near = np.maximum(1 - np.abs(np.clip(points, 0, extent - 1)[..., None] - places), 0)
    return (near * inside[..., None]).reshape(len(first), BINS, SAMPLES, extent).mean(2)
