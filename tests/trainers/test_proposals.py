"""Anchors, proposals and RoIAlign, against loops over their definitions."""

import math

import numpy as np
import pytest
import torch

from trainers.boxes import nms
from trainers.matching import corners, decode
from trainers.proposals import anchors, propose, roi_align


def test_anchors() -> None:
    found = anchors(2, 3, [0.2, 0.5], [0.5, 2])
    assert found.shape == (24, 4) and found.dtype == np.float32
    wide, high = 0.2 * math.sqrt(2), 0.2 / math.sqrt(2)
    assert found[0].tolist() == pytest.approx([1 / 6, 1 / 4, wide, high])  # the height is half of the width
    assert found[1].tolist() == pytest.approx([1 / 6, 1 / 4, high, wide])
    assert found[6].tolist() == pytest.approx([3 / 6, 1 / 4, 2.5 * wide, 2.5 * high])
    assert found[-1].tolist() == pytest.approx([5 / 6, 3 / 4, 2.5 * high, 2.5 * wide])
    np.testing.assert_allclose(found[:, 2] * found[:, 3], np.tile([0.04, 0.04, 0.25, 0.25], 6), rtol=1e-6)


@pytest.mark.parametrize("after", [4, 20])
def test_proposals_are_what_suppression_leaves_and_then_the_others(after: int) -> None:
    torch.manual_seed(0)
    priors = torch.from_numpy(anchors(4, 4, [0.3, 0.6], [1.0]))
    objectness, deltas = torch.randn(3, 32), torch.randn(3, 32, 4)
    deltas[0, :5, 2] = -1e9  # of no width
    found = propose(objectness, deltas, priors, 24, after, 0.4)
    for image in range(3):
        best = sorted(range(32), key=lambda k: -float(objectness[image, k]))[:24]
        boxes = decode(deltas[image], priors)
        kept = [best[k] for k in nms(boxes[best], objectness[image][best], 0.4)]
        expected = [*kept, *[k for k in best if k not in kept]][:after]
        assert torch.equal(found[image], boxes[expected])
        assert image or 0 < len(kept) < after or after == 4


def interpolated(map_: torch.Tensor, y: float, x: float) -> float:
    """Of a map (H, W), whose values lie at whole numbers."""
    height, width = map_.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, along = y - top, x - left
    return float(
        (1 - down) * ((1 - along) * map_[top, left] + along * map_[top, right])
        + down * ((1 - along) * map_[bottom, left] + along * map_[bottom, right])
    )


def test_roi_align_point_by_point() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 2, 4, 5)
    boxes = torch.tensor([[0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], [0.5, 0.5, 0.5, 0.5], [-0.6, 0.3, 1.5, 0.35]])
    boxes = torch.stack([boxes, boxes.flip(0)])
    found = roi_align(features, boxes).unflatten(0, (2, 4))
    assert found.shape == (2, 4, 2, 7, 7)
    for image, roi, channel in np.ndindex(2, 4, 2):
        x1, y1, x2, y2 = boxes[image, roi].double().tolist()
        for row, column in np.ndindex(7, 7):
            points = [
                interpolated(
                    features[image, channel],
                    4 * (y1 + (y2 - y1) * (row + down) / 7) - 0.5,
                    5 * (x1 + (x2 - x1) * (column + along) / 7) - 0.5,
                )
                for down in (0.25, 0.75)
                for along in (0.25, 0.75)
            ]
            assert float(found[image, roi, channel, row, column]) == pytest.approx(sum(points) / 4, abs=1e-5)


def test_a_proposal_of_the_whole_map_takes_gradients_to_all_of_it() -> None:
    features = torch.zeros(1, 1, 7, 7, requires_grad=True)
    roi_align(features, torch.tensor([[[0.0, 0, 1, 1]]])).sum().backward()
    assert features.grad is not None and (features.grad > 0).all()
    assert float(features.grad.sum()) == pytest.approx(49, rel=1e-5)


def test_corners_of_an_anchor() -> None:
    assert corners(torch.tensor([0.5, 0.4, 0.2, 0.6])).tolist() == pytest.approx([0.4, 0.1, 0.6, 0.7])
