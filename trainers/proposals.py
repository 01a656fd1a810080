"""What lies between the two networks of Faster R-CNN: where to look, and what the map has there.

Nothing here is learned, and shapes follow from shapes alone. `bibench_tvm.detection` has the same in numpy,
for where there is no torch."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from trainers.boxes import area, iou, survivors
from trainers.matching import decode

BINS = 7  # in each direction, of what an RoI's features are
SAMPLES = 2  # in each direction, of each bin


def anchors(height: int, width: int, scales: Sequence[float], ratios: Sequence[float]) -> np.ndarray:
    """Float32 (height * width * boxes, 4), centres and sizes in shares of the image, row by row.

    Args:
        height, width: of the map; scales: roots of the boxes' areas; ratios: of height to width.
    """
    sizes = [(scale / ratio**0.5, scale * ratio**0.5) for scale in scales for ratio in ratios]
    y, x = np.mgrid[:height, :width]
    places = (np.stack([x, y], -1).reshape(-1, 1, 2) + 0.5) / [width, height]
    shape = (height * width, len(sizes), 2)
    both = np.broadcast_to(places, shape), np.broadcast_to(np.array(sizes), shape)
    return np.concatenate(both, -1).reshape(-1, 4).astype(np.float32)


def propose(
    objectness: Tensor, deltas: Tensor, priors: Tensor, before: int, after: int, overlap: float
) -> Tensor:
    """Boxes (N, after, 4) that may hold an object, x1, y1, x2, y2 in shares of the image.

    Of the `before` anchors with the best scores come first those that stay where no two overlap by more than
    `overlap`, then the others, both by falling score. So there are always as many.

    Args:
        objectness: (N, A); deltas: (N, A, 4); priors: (A, 4), A at least `after`.
    """
    order = objectness.argsort(dim=1, descending=True, stable=True)[:, :before]
    boxes = decode(_take(deltas, order), priors[order])
    stays = survivors(iou(boxes, boxes) > overlap) & (area(boxes) > 0)
    return _take(boxes, (~stays).int().argsort(dim=1, stable=True)[:, :after])


def _take(rows: Tensor, order: Tensor) -> Tensor:
    return rows.gather(1, order.unsqueeze(-1).expand(-1, -1, rows.shape[-1]))


def roi_align(features: Tensor, boxes: Tensor) -> Tensor:
    """What the map (N, C, H, W) has in the boxes (N, P, 4), in 7x7 bins: (N * P, C, 7, 7).

    He et al., 2017, "Mask R-CNN" (arXiv:1703.06870), section 3: a bin is the mean of 2x2 points, a point is
    interpolated between the four values around it. A value lies in the middle of its place on the map
    (`aligned=True` elsewhere); a point more than one place outside is 0. Both directions are by themselves,
    so that it is two matrix products.
    """
    rows = _weights(boxes[..., 1], boxes[..., 3], features.shape[2])
    columns = _weights(boxes[..., 0], boxes[..., 2], features.shape[3])
    return torch.einsum("npih,nchw,npjw->npcij", rows, features, columns).flatten(0, 1)


def _weights(first: Tensor, last: Tensor, extent: int) -> Tensor:
    """How much each bin between `first` and `last` (N, P) has of each place: (N, P, 7, extent)."""
    share = (torch.arange(BINS * SAMPLES, device=first.device) + 0.5) / (BINS * SAMPLES)
    points = (first.unsqueeze(-1) + (last - first).unsqueeze(-1) * share) * extent - 0.5
    inside = (points >= -1) & (points <= extent)
    places = torch.arange(extent, device=first.device)
    near = (1 - (points.clamp(0, extent - 1).unsqueeze(-1) - places).abs()).clamp(min=0)
    return (near * inside.unsqueeze(-1)).unflatten(2, (BINS, SAMPLES)).mean(3)
