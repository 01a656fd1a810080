"""Overlaps against a count of pixels, and suppression against the obvious loop."""

import math

import numpy as np
import pytest
import torch

from trainers.boxes import area, clip, iou, nms

NAN = math.nan


def overlap(a: list[float], b: list[float]) -> float:
    if not all(box[2] > box[0] and box[3] > box[1] for box in (a, b)):
        return 0.0
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = wide * high if wide > 0 and high > 0 else 0.0
    first, second = ((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return both / (first + second - both)


def by_loop(boxes: list[list[float]], scores: list[float], threshold: float) -> list[int]:
    left = [i for i, b in enumerate(boxes) if b[2] > b[0] and b[3] > b[1] and not math.isnan(scores[i])]
    kept = []
    while left:
        best = left[0]
        for i in left:
            if scores[i] > scores[best]:
                best = i
        kept.append(best)
        left = [i for i in left if i != best and overlap(boxes[i], boxes[best]) <= threshold]
    return kept


def test_overlaps_are_a_count_of_pixels() -> None:
    random = np.random.default_rng(0)
    boxes = random.integers(-2, 9, (40, 4))  # a quarter of them upright
    pixels = np.zeros((40, 11, 11), bool)
    for mask, (x1, y1, x2, y2) in zip(pixels, boxes + 2, strict=True):
        mask[y1 : max(y1, y2), x1 : max(x1, x2)] = True
    both = (pixels[:, None] & pixels).sum((2, 3))
    either = (pixels[:, None] | pixels).sum((2, 3))
    found = iou(torch.from_numpy(boxes).float(), torch.from_numpy(boxes).float())
    np.testing.assert_allclose(found.numpy(), both / np.maximum(either, 1), rtol=1e-6)
    assert area(torch.from_numpy(boxes)).tolist() == pixels.sum((1, 2)).tolist()
    assert iou(torch.rand(2, 3, 4), torch.rand(2, 5, 4)).shape == (2, 3, 5)
    assert iou(torch.rand(0, 4), torch.rand(5, 4)).shape == (0, 5)


def test_boxes_without_area_overlap_nothing() -> None:
    whole = torch.tensor([[0.0, 0, 1, 1]])
    odd = torch.tensor([[0.5, 0.2, 0.5, 0.8], [0.8, 0.8, 0.2, 0.2], [NAN, 0, 1, 1], [0.2, 0, 1, NAN]])
    assert iou(odd, whole).tolist() == [[0], [0], [0], [0]]
    assert iou(odd, odd).abs().sum() == 0


def test_clip() -> None:
    assert clip(torch.tensor([[-1.0, 0.5, 3, 0.7]])).tolist() == [[0, 0.5, 1, pytest.approx(0.7)]]
    assert clip(torch.tensor([[-1.0, 5, 30, 70]]), 20, 10).tolist() == [[0, 5, 20, 10]]


@pytest.mark.parametrize("seed", range(8))
def test_suppression_is_that_of_a_loop(seed: int) -> None:
    random = np.random.default_rng(seed)
    count = (0, 1, 60, 60, 60, 60, 60, 200)[seed]
    boxes = random.integers(0, 8, (count, 4)).astype(float)
    boxes[:, 2:] += boxes[:, :2] * (random.random((count, 1)) < 0.8)  # the others often inverted or empty
    boxes[random.random(count) < 0.1, 1] = NAN
    scores = random.integers(0, 10, count) / 10  # many equal
    scores[random.random(count) < 0.1] = NAN
    for threshold in (0.0, 0.3, 0.45, 1.0):
        found = nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold)
        assert found.tolist() == by_loop(boxes.tolist(), scores.tolist(), threshold)


def test_equal_scores_keep_their_order() -> None:
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 5], [9, 9, 10, 10], [0, 0, 4, 4]])
    assert nms(boxes, torch.full((4,), 0.5), 0.5).tolist() == [0, 2]
    assert nms(boxes, torch.tensor([0.5, 0.6, 0.6, 0.6]), 0.5).tolist() == [1, 2]


def test_what_is_suppressed_suppresses_nothing() -> None:
    row = torch.tensor([[x, 0.0, x + 10, 10.0] for x in (0.0, 3, 6, 9, 12)])  # each overlaps the next by 0.54
    assert nms(row, torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5]), 0.5).tolist() == [0, 2, 4]
