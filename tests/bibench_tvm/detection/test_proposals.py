"""The arithmetic of boxes in numpy gives what torch gives, for boxes of all kinds."""

from typing import Any

import numpy as np
import pytest
import torch

import trainers.boxes
import trainers.matching
import trainers.proposals
from bibench_tvm.detection import proposals


def equal(ours: np.ndarray, theirs: Any, tolerance: float = 1e-6) -> None:
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=tolerance, atol=tolerance)


def random_boxes(count: int, seed: int) -> np.ndarray:
    """Of all kinds: inside, sharing edges, empty, inverted, outside, the same twice."""
    random = np.random.default_rng(seed)
    boxes = np.sort(random.random((count, 2, 2), np.float32), 1).reshape(count, 4)
    boxes[::4] = np.round(4 * boxes[::4]) / 4
    boxes[1::8] = boxes[::8][: len(boxes[1::8])]
    boxes[2::16, 2] = boxes[2::16, 0]
    boxes[3::16] = boxes[3::16][:, [2, 3, 0, 1]]
    boxes[4::16] = 3 * boxes[4::16] - 1
    return boxes


@pytest.mark.parametrize("seed", range(5))
def test_boxes(seed: int) -> None:
    boxes = random_boxes(64, seed)
    scores = np.round(np.random.default_rng(seed).random(64, np.float32), 1)
    scores[5] = np.nan
    torch_boxes, torch_scores = torch.from_numpy(boxes), torch.from_numpy(scores)
    equal(proposals.area(boxes), trainers.boxes.area(torch_boxes))
    equal(proposals.centres(boxes), trainers.matching.centres(torch_boxes))
    equal(proposals.iou(boxes, boxes[:9]), trainers.boxes.iou(torch_boxes, torch_boxes[:9]))
    for threshold in (0.0, 0.3, 0.7):
        kept = trainers.boxes.nms(torch_boxes, torch_scores, threshold)
        assert proposals.nms(boxes, scores, threshold).tolist() == kept.tolist()
    assert proposals.nms(boxes[:0], scores[:0], 0.5).tolist() == []


@pytest.mark.parametrize("height, width, scales, ratios", [(3, 3, [0.2, 0.5], [0.5, 1, 2]), (1, 4, [1], [3])])
def test_anchors(height: int, width: int, scales: list[float], ratios: list[float]) -> None:
    ours = proposals.anchors(height, width, scales, ratios)
    np.testing.assert_array_equal(ours, trainers.proposals.anchors(height, width, scales, ratios))


@pytest.mark.parametrize("spread", [0.5, 5, 1000])
def test_proposals_and_their_features(spread: float) -> None:
    torch.manual_seed(0)
    priors = trainers.proposals.anchors(5, 6, [0.2, 0.5], [0.5, 1, 2])
    objectness, deltas = (
        torch.randn(2, len(priors)).round(decimals=1),
        spread * torch.randn(2, len(priors), 4),
    )
    theirs = trainers.proposals.propose(objectness, deltas, torch.from_numpy(priors), 100, 40, 0.6)
    ours = [
        proposals.propose(scores.numpy(), moved.numpy(), priors, 100, 40, 0.6)
        for scores, moved in zip(objectness, deltas, strict=True)
    ]
    equal(np.stack(ours), theirs, 1e-5)
    features = torch.randn(2, 3, 5, 6)
    found = [
        proposals.roi_align(map_.numpy(), boxes.numpy()) for map_, boxes in zip(features, theirs, strict=True)
    ]
    equal(np.concatenate(found), trainers.proposals.roi_align(features, theirs), 1e-4)
