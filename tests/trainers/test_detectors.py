"""SSD and Faster R-CNN: their boxes, their sizes, what they are trained by."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import trainers
from trainers.inputs import call
from trainers.matching import corners, decode, encode, match
from trainers.models.faster_rcnn import draw
from trainers.models.ssd import default_boxes
from trainers.training.module import loss_of

NAMES = ["ssd300@small", "faster_rcnn@small"]


def detector(name: str, algorithm: str = "bnn") -> Any:
    torch.manual_seed(0)
    return trainers.binarize(trainers.create_model(name, num_classes=3, image_size=64), algorithm)


def batch() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    boxes = torch.tensor([[[0.1, 0.2, 0.5, 0.7], [0.4, 0.4, 1, 0.9]], [[0, 0, 0.3, 0.3], [0, 0, 0, 0]]])
    labels, difficult = torch.tensor([[0, 2], [1, -1]]), torch.zeros(2, 2, dtype=torch.bool)
    return torch.randn(2, 3, 64, 64), {"boxes": boxes, "labels": labels, "difficult": difficult}


def test_the_default_boxes_of_ssd300() -> None:
    """By the numbers of its Caffe configuration for VOC, in pixels."""
    with torch.device("meta"):
        model: Any = trainers.create_model("ssd300")
    boxes = 300 * model.default_boxes
    assert boxes.shape == (8732, 4) == (4 * (38**2 + 3**2 + 1) + 6 * (19**2 + 10**2 + 5**2), 4)
    first = [[4, 4, w, h] for w, h in sides(30, 60, [2])] + [[12, 4, w, h] for w, h in sides(30, 60, [2])]
    torch.testing.assert_close(boxes[:8], torch.tensor(first))
    last = [[250, 250, w, h] for w, h in sides(213, 264, [2])] + [
        [150, 150, w, h] for w, h in sides(264, 315, [2])
    ]
    torch.testing.assert_close(boxes[-8:], torch.tensor(last))
    start = 0
    for extent, step, small, large, ratios in (
        (38, 8, 30, 60, [2]),
        (19, 16, 60, 111, [2, 3]),
        (10, 32, 111, 162, [2, 3]),
        (5, 64, 162, 213, [2, 3]),
        (3, 100, 213, 264, [2]),
        (1, 300, 264, 315, [2]),
    ):
        count = 2 + 2 * len(ratios)
        place = extent * (extent - 1) + extent // 2  # in the last row
        x, y = (extent // 2 + 0.5) * step, (extent - 0.5) * step
        expected = torch.tensor([[x, y, w, h] for w, h in sides(small, large, ratios)])
        torch.testing.assert_close(boxes[start + place * count :][:count], expected)
        start += extent * extent * count
    assert start == 8732


def sides(small: float, large: float, ratios: list[int]) -> list[tuple[float, float]]:
    found = [(small, small), (math.sqrt(small * large),) * 2]
    for ratio in ratios:
        found += [
            (small * math.sqrt(ratio), small / math.sqrt(ratio)),
            (small / math.sqrt(ratio), small * math.sqrt(ratio)),
        ]
    return found


def test_the_maps_of_ssd_have_the_extents_of_its_default_boxes() -> None:
    for size in (64, 97, 128, 300, 301):
        with torch.device("meta"):
            model = trainers.create_model("ssd300@small", image_size=size).eval()
            boxes, scores = model(torch.zeros(1, 3, size, size))
        assert boxes.shape[1] == scores.shape[1] == len(model.default_boxes), size
    assert default_boxes([4, 2, 1], [0.25, 0.5, 1])[-1, 2:].tolist() == pytest.approx(
        [0.9 / math.sqrt(2), 0.9 * math.sqrt(2)]
    )


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_boxes_and_probabilities(name: str) -> None:
    model = detector(name).eval()
    boxes, scores = model(batch()[0])
    assert boxes.shape[:2] == scores.shape[:2] and boxes.shape[2] == 4 and scores.shape[2] == 4
    assert boxes.min() >= 0 and boxes.max() <= 1 and (boxes[..., 2:] >= boxes[..., :2]).all()
    torch.testing.assert_close(scores.sum(-1), torch.ones(scores.shape[:2]))


@pytest.mark.parametrize("algorithm", ["fp32", "reactnet"])
@pytest.mark.parametrize("name", NAMES)
def test_it_learns_a_batch_by_its_own_loss(name: str, algorithm: str) -> None:
    model = detector(name, algorithm)
    inputs, targets = batch()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    task: Any = None
    losses = []
    for step in range(16):
        torch.manual_seed(step)
        loss = loss_of(model, task)(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        if not step:
            assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.85 * losses[0], losses


@pytest.mark.parametrize("name", NAMES)
def test_images_without_objects_have_a_loss(name: str) -> None:
    model = detector(name)
    inputs, targets = batch()
    for empty in (
        targets | {"labels": -torch.ones(2, 2).long()},
        targets | {"difficult": torch.ones(2, 2).bool()},
    ):
        loss = model.loss(model(inputs), empty)
        loss.backward()
        assert torch.isfinite(loss)


def test_the_loss_of_ssd_by_its_formula() -> None:
    """Box by box: equation 1 of the paper, with three negatives for each positive of an image."""
    model = detector("ssd300@small")
    _, targets = batch()
    priors = model.default_boxes
    deltas, logits = torch.randn(2, len(priors), 4), torch.randn(2, len(priors), 4)
    total, count = 0.0, 0
    for image in range(2):
        chosen = targets["labels"][image] >= 0
        truths, labels = targets["boxes"][image][chosen], targets["labels"][image][chosen]
        index, _ = match(corners(priors), truths, 0.5)
        negatives = []
        for box, truth in enumerate(index.tolist()):
            entropy = -F.log_softmax(logits[image, box], 0)
            if truth < 0:
                negatives.append(float(entropy[0]))
                continue
            difference = (deltas[image, box] - encode(truths[truth], priors[box])).abs().tolist()
            total += float(entropy[1 + labels[truth]])
            total += sum(d * d / 2 if d < 1 else d - 0.5 for d in difference)
        count += int((index >= 0).sum())
        total += sum(sorted(negatives, reverse=True)[: 3 * int((index >= 0).sum())])
    assert float(model.loss((deltas, logits), targets)) == pytest.approx(total / count, rel=1e-4)


def test_the_stages_of_faster_rcnn_together_are_the_network() -> None:
    from trainers.proposals import roi_align

    model = detector("faster_rcnn@small").eval()
    inputs, _ = batch()
    features, objectness, deltas = model.first(inputs)
    assert objectness.shape == (2, 9 * 4 * 4) and deltas.shape == (2, 144, 4) == (2, *model.anchors.shape)
    proposed = model.propose(objectness, deltas)
    assert proposed.shape == (2, model.proposals, 4)
    rois = roi_align(features, proposed)
    assert rois.shape == (2 * model.proposals, *model.second.example_inputs[0].shape[1:])
    scores, moved = model.second(rois)
    boxes, found = model(inputs)
    assert torch.equal(found.flatten(0, 1), scores)
    middle, size = (proposed[..., :2] + proposed[..., 2:]) / 2, proposed[..., 2:] - proposed[..., :2]
    expected = decode(moved.unflatten(0, (2, -1)), torch.cat([middle, size], -1))
    torch.testing.assert_close(boxes, expected)
    for stage in (model.first, model.second):
        call(stage, stage.example_inputs)


def test_positives_and_negatives_are_drawn() -> None:
    positive = torch.tensor([True, False, True, True, False, False, False, False])
    negative = ~positive
    negative[7] = False
    torch.manual_seed(0)
    drawn = [draw(positive, negative, 4, 2) for _ in range(50)]
    assert all(len(d) == 4 and positive[d].sum() == 2 and negative[d].sum() == 2 for d in drawn)
    assert set(torch.cat(drawn).tolist()) == set(range(7))
    assert sorted(draw(positive, negative, 8, 2).tolist()) == list(range(7))
    assert positive[draw(positive, positive & negative, 3, 1)].all()
