"""Which boxes stand for which objects, against rules followed step by step."""

import math

import pytest
import torch

from trainers.boxes import iou
from trainers.matching import (
    GROWTH,
    assign,
    centres,
    corners,
    decode,
    encode,
    hard_negatives,
    match,
    objects,
)


def random_boxes(count: int) -> torch.Tensor:
    corner, size = torch.rand(count, 2) / 2, 0.05 + 0.45 * torch.rand(count, 2)
    return torch.cat([corner, corner + size], -1)


def test_deltas_by_their_formula() -> None:
    prior, box = torch.tensor([[0.5, 0.4, 0.2, 0.1]]), torch.tensor([[0.4, 0.3, 0.8, 0.5]])
    found = encode(box, prior)[0].tolist()
    assert found == pytest.approx([0.1 / 0.2 / 0.1, 0, math.log(2) / 0.2, math.log(2) / 0.2], abs=1e-5)
    torch.testing.assert_close(decode(torch.zeros(1, 4), prior), torch.tensor([[0.4, 0.35, 0.6, 0.45]]))


def test_what_is_encoded_comes_back() -> None:
    torch.manual_seed(0)
    boxes, priors = random_boxes(200), random_boxes(200)
    torch.testing.assert_close(corners(centres(boxes)), boxes)
    torch.testing.assert_close(decode(encode(boxes, centres(priors)), centres(priors)), boxes)


def test_a_decoded_box_is_in_the_image_whatever_the_network_says() -> None:
    extremes = torch.tensor([-1e30, -50, 0, GROWTH, 1e30])
    deltas = torch.cartesian_prod(*[extremes] * 4)
    for prior in ([0.5, 0.5, 0.1, 0.2], [0, 1, 0, 0]):
        boxes = decode(deltas, torch.tensor(prior))
        assert torch.isfinite(boxes).all() and boxes.min() >= 0 and boxes.max() <= 1
        assert (boxes[:, 2:] >= boxes[:, :2]).all()


@pytest.mark.parametrize("seed", range(5))
def test_a_match(seed: int) -> None:
    """Pairs one by one for the best of each truth; the others by their largest overlap."""
    torch.manual_seed(seed)
    boxes, truths = random_boxes(30), random_boxes(6)
    truths[5] = truths[4]  # both have the same best box
    overlap = iou(boxes, truths)
    expected = [int(row.argmax()) if row.max() >= 0.5 else -1 for row in overlap]
    index, largest = match(boxes, truths, 0.5, each=False)
    assert index.tolist() == expected
    assert torch.equal(largest, overlap.max(1).values)
    pairs = sorted((-float(overlap[k, m]), k, m) for k in range(30) for m in range(6))
    taken: dict[int, int] = {}
    for _, box, truth in pairs:
        if box not in taken and truth not in taken.values():
            taken[box] = truth
    index, _ = match(boxes, truths, 0.5)
    assert sorted(taken.values()) == list(range(6))
    assert index.tolist() == [taken.get(box, expected[box]) for box in range(30)]


def test_a_match_of_nothing() -> None:
    boxes = random_boxes(3)
    index, largest = match(boxes, torch.zeros(0, 4), 0.5)
    assert index.tolist() == [-1, -1, -1] and largest.tolist() == [0, 0, 0]
    index, _ = match(boxes * 0.1, torch.tensor([[0.8, 0.8, 0.9, 0.9]]), 0.5)
    assert index.tolist() == [-1, -1, -1]  # a box that overlaps it not at all stands for nothing
    deltas, classes = assign(index, torch.zeros(0, 4), torch.zeros(0).long(), centres(boxes))
    assert torch.isfinite(deltas).all() and classes.tolist() == [0, 0, 0]


def test_what_is_assigned() -> None:
    priors, truths = centres(random_boxes(3)), random_boxes(2)
    deltas, classes = assign(torch.tensor([1, -1, 0]), truths, torch.tensor([7, 0]), priors)
    assert classes.tolist() == [1, 0, 8]
    torch.testing.assert_close(deltas[[0, 2]], encode(truths[[1, 0]], priors[[0, 2]]))


def test_objects_are_neither_padding_nor_difficult_nor_empty() -> None:
    boxes = torch.tensor([[0.1, 0.1, 0.2, 0.2]]).repeat(2, 4, 1)
    boxes[0, 3] = torch.tensor([0.5, 0.5, 0.5, 0.9])
    targets = {
        "boxes": boxes,
        "labels": torch.tensor([[3, -1, 2, 1], [-1, -1, -1, -1]]),
        "difficult": torch.tensor([[False, False, True, False], [False] * 4]),
    }
    first, second = objects(targets)
    assert first[1].tolist() == [3] and len(first[0]) == 1
    assert second[1].tolist() == [] and second[0].shape == (0, 4)


def test_hard_negatives_are_those_with_the_largest_loss() -> None:
    losses = torch.tensor([[9.0, 1, 3, 2, 8, 4, 0], [1, 2, 3, 4, 5, 6, 7], [1, 1, 1, 1, 1, 1, 1]])
    positive = torch.zeros(3, 7, dtype=torch.bool)
    positive[0, 0] = positive[2, 0] = positive[2, 1] = positive[2, 2] = True
    found = hard_negatives(losses, positive)
    assert found.int().tolist() == [[0, 0, 1, 0, 1, 1, 0], [0] * 7, [0, 0, 0, 1, 1, 1, 1]]
