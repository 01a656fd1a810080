"""VOC's average precision worked out by hand, against loops, and against pycocotools where both agree; what a
network found, against a loop."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics import MetricCollection

from trainers.tasks.average_precision import CocoAP, Detections, VocAP, average_precisions, detect, match
from trainers.tasks.coco17 import Coco17
from trainers.tasks.detection import Objects, collate

CLASSES = 3


def overlap(a: list[float], b: list[float]) -> float:
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if wide <= 0 or high <= 0 or any(box[2] <= box[0] or box[3] <= box[1] for box in (a, b)):
        return 0.0
    return wide * high / (sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - wide * high)


def detect_by_loop(boxes: list[list[float]], scores: list[list[float]], most: int) -> list[tuple]:
    boxes = [[min(max(side, 0.0), 1.0) for side in box] for box in boxes]
    kept: list[tuple] = []
    for label in range(CLASSES):
        rows = [
            (scores[i][label + 1], i)
            for i, box in enumerate(boxes)
            if scores[i][label + 1] > 0.01 and box[2] > box[0] and box[3] > box[1]
        ]
        own: list[tuple] = []
        for score, i in sorted(rows, key=lambda row: (-row[0], row[1]))[:400]:
            if all(overlap(boxes[i], box) <= 0.45 for _, _, box in own):
                own.append((score, label, boxes[i]))
        kept += own
    return sorted(kept, key=lambda row: -row[0])[:most]


def random_outputs(random: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
    """Boxes of eighths, many of them equal, beyond the image, inverted or empty; scores of tenths."""
    corner = random.integers(-1, 8, (count, 2))
    boxes = np.concatenate([corner, corner + random.integers(-1, 6, (count, 2))], 1) / 8
    scores = random.integers(0, 11, (count, CLASSES + 1)) / 10
    return torch.from_numpy(boxes).float(), torch.from_numpy(scores).float()


@pytest.mark.parametrize("seed", range(6))
def test_what_a_network_found_is_what_a_loop_finds(seed: int) -> None:
    random = np.random.default_rng(seed)
    boxes, scores = random_outputs(random, (0, 1, 40, 40, 40, 900)[seed])
    odd = torch.from_numpy(random.random(len(boxes)) < 0.1)
    scores[odd, seed % 4], boxes[odd.flip(0), 1] = math.nan, math.nan
    for most in (10, 200):
        found = detect(boxes, scores, most)
        expected = detect_by_loop(boxes.nan_to_num(9).tolist(), scores.tolist(), most)
        assert found.labels.tolist() == [label for _, label, _ in expected]
        assert found.scores.tolist() == pytest.approx([score for score, _, _ in expected])
        assert found.boxes.tolist() == [box for _, _, box in expected]


def one_hot(found: list[tuple[float, int, list[float]]]) -> tuple[Tensor, Tensor]:
    """Outputs of detections that do not suppress one another."""
    scores = torch.zeros(len(found), CLASSES + 1)
    for row, (score, label, _) in enumerate(found):
        scores[row, label + 1] = score
    return torch.tensor([box for _, _, box in found]).reshape(-1, 4), scores


def objects(truth: list[tuple[int, bool, list[float]]]) -> Objects:
    return Objects(
        torch.tensor([box for _, _, box in truth]).reshape(-1, 4),
        torch.tensor([label for label, _, _ in truth]).long(),
        torch.tensor([difficult for _, difficult, _ in truth]).bool(),
    )


A, B, C, D = ([x, y, x + 0.25, y + 0.25] for x, y in ((0, 0), (0.5, 0), (0, 0.5), (0.5, 0.5)))
HALF_OF_A = [0, 0, 0.25, 0.125]  # overlaps A by 1/2, which is enough
LESS_OF_A = [0, 0, 0.25, 0.12]


def test_the_worked_example() -> None:
    """One image: A and B are of class 0, C of class 0 and difficult, D of class 1; nothing is of class 2.

    By falling scores, class 0 has: B (right), D's place (wrong), the middle (wrong), C (does not count), half
    of A (right). Precision is 1, 1/2, 1/3, 2/4 at recalls 1/2, 1/2, 1/2, 1: it is 1 at the six points up to
    1/2 and 1/2 at the other five. Class 1 has one box, which overlaps D by too little.
    """
    truth = [(0, False, A), (0, False, B), (0, True, C), (1, False, D)]
    of_0 = [(0.9, 0, B), (0.8, 0, D), (0.7, 0, [0.3, 0.3, 0.4, 0.4]), (0.5, 0, C), (0.4, 0, HALF_OF_A)]
    boxes, scores = one_hot([*of_0, (0.6, 1, [0.5, 0.5, 0.75, 0.62]), (0.7, 2, A)])
    metric = VocAP(CLASSES)
    metric.update((boxes[None], scores[None]), collate([objects(truth)], [0]))
    assert metric.by_class().tolist() == pytest.approx([8.5 / 11, 0, math.nan], nan_ok=True)
    assert metric.compute().item() == pytest.approx(8.5 / 22)


def test_an_object_is_found_once_and_a_difficult_one_never() -> None:
    truth = objects([(0, False, A), (0, True, C), (1, False, A)])
    rows = [(A, 0), (HALF_OF_A, 0), (LESS_OF_A, 0), (C, 0), (C, 0), (A, 1), (C, 1), (A, 2)]
    boxes = torch.tensor([box for box, _ in rows])
    found = Detections(boxes, torch.linspace(1, 0.1, 8), torch.tensor([label for _, label in rows]))
    right, counts = match(found, *truth)
    assert right.tolist() == [True, False, False, False, False, True, False, False]
    assert counts.tolist() == [True, True, True, False, False, True, True, True]
    none = match(found, *objects([]))
    assert (none[0].any().item(), none[1].all().item()) == (False, True)


def voc_by_loop(images: list[tuple[list[tuple], list[tuple]]]) -> list[float]:
    """Of each class, as the development kit goes about it: over all detections by falling scores."""
    averages = []
    for label in range(CLASSES):
        own = [(s, k, b) for k, (found, _) in enumerate(images) for s, of, b in found if of == label]
        taken, right, wrong, points = set(), 0, 0, []
        count = sum(of == label and not d for _, truth in images for of, d, _ in truth)
        for _, k, box in sorted(own, key=lambda row: -row[0]):
            best, whose = -1.0, None
            for number, (of, _, other) in enumerate(images[k][1]):
                if of == label and overlap(box, other) > best:
                    best, whose = overlap(box, other), number
            if best < 0.5:
                wrong += 1
            elif not images[k][1][whose][1]:
                right, wrong = right + ((k, whose) not in taken), wrong + ((k, whose) in taken)
                taken.add((k, whose))
            points.append((right, right / max(1, right + wrong)))
        at = [max([p for r, p in points if 10 * r >= count * t], default=0.0) for t in range(11)]
        averages.append(sum(at) / 11 if count else math.nan)
    return averages


@pytest.mark.parametrize("seed", range(6))
def test_random_boxes(seed: int) -> None:
    random = np.random.default_rng(seed)
    metric, halves, images = VocAP(CLASSES), [VocAP(CLASSES), VocAP(CLASSES)], []
    for batch in range(6):
        outputs, truths = [], []
        for _ in range(4):
            boxes, scores = random_outputs(random, 12)
            scores += torch.from_numpy(random.random(scores.shape)).float() / 100  # none equal
            corner = random.integers(0, 6, (random.integers(0, 5), 2))
            truth = np.concatenate([corner, corner + random.integers(1, 4, corner.shape)], 1) / 8
            labels = random.integers(0, 2 if seed == 0 else CLASSES, len(truth))
            difficult = random.random(len(truth)) < 0.2
            outputs.append((boxes, scores))
            truths.append((torch.from_numpy(truth).float(), torch.tensor(labels), torch.tensor(difficult)))
            found = detect_by_loop(boxes.tolist(), scores.tolist(), 200)
            images.append((found, list(zip(labels, difficult, truth.tolist(), strict=True))))
        stacked = tuple(torch.stack(part) for part in zip(*outputs, strict=True))
        targets = collate([Objects(*truth) for truth in truths], range(4))
        metric.update(stacked, targets)
        halves[batch % 2].update(stacked, targets)
    expected = voc_by_loop(images)
    assert metric.by_class().tolist() == pytest.approx(expected, nan_ok=True)
    assert metric.compute().item() == pytest.approx(np.nanmean(expected))
    assert 0 < metric.compute() < 1
    halves[0].merge_state(halves[1])  # as processes do
    assert halves[0].compute() == pytest.approx(metric.compute())


def test_ours_and_that_of_pycocotools_agree(capfd: pytest.CaptureFixture[str]) -> None:
    """Where no object is difficult and no detection overlaps two of them, over the same eleven points."""
    random = np.random.default_rng(0)
    voc, coco = VocAP(CLASSES), CocoAP(CLASSES)
    for image in range(40):
        places = random.permutation(16)[: random.integers(0, 9)]
        truth = np.stack([places % 4, places // 4, places % 4 + 1, places // 4 + 1], 1) / 4
        labels = random.integers(0, CLASSES, len(truth))
        boxes = np.concatenate([truth + random.normal(size=truth.shape) / 40, random.random((3, 4))])
        scores = random.random((len(boxes), CLASSES + 1))
        scores[np.arange(len(truth)), labels + 1] += 0.5
        outputs = torch.from_numpy(boxes)[None].float(), torch.from_numpy(scores)[None].float()
        own = Objects(*(torch.tensor(part) for part in (truth, labels, np.zeros(len(truth), bool))))
        targets = collate([own._replace(boxes=own.boxes.float())], [1000 - image])
        voc.update(outputs, targets)
        coco.update(outputs, targets)
    found, truths = torch.cat(coco.found).numpy(), torch.cat(coco.truth).numpy()
    images = torch.cat(coco.images).tolist()
    of_class = average_precisions(found, truths, images, CLASSES, np.arange(11) / 10)[0]
    assert voc.by_class().tolist() == pytest.approx(of_class.tolist(), abs=1e-9)
    assert 0.2 < of_class.min() < of_class.max() < 0.95
    values = coco.compute()
    assert values["mAP@.5"].item() == pytest.approx(of_class.mean(), abs=0.05)
    assert 0.1 < values["mAP"] < values["mAP@.5"]
    assert capfd.readouterr() == ("", "")


def test_coco_counts_no_crowds_and_no_other_image() -> None:
    task = Coco17.__new__(Coco17)
    task.sizes = {"num_classes": CLASSES}
    metrics = task.metrics()
    found = one_hot([(0.9, 0, A), (0.8, 1, D), (0.95, 0, [0, 0.5, 0.125, 0.625])])  # the last is in C
    nothing = one_hot([(0.0, 0, A)] * 3)
    targets = collate([objects([(0, False, A), (0, True, C)]), objects([(1, False, D)])], [42, 7])
    metrics.update(tuple(torch.stack(part) for part in zip(found, nothing, strict=True)), targets)
    assert {name: value.item() for name, value in metrics.compute().items()} == {"mAP": 0.5, "mAP@.5": 0.5}
    tight = CocoAP(CLASSES)
    tight.update(
        tuple(x[None] for x in one_hot([(1.0, 0, [0, 0, 0.25, 0.19])])),
        collate([objects([(0, False, A)])], [3]),
    )
    assert tight.compute()["mAP"].item() == pytest.approx(0.6)  # from 0.5 to 0.75, of ten
    assert tight.compute()["mAP@.5"] == 1


@pytest.mark.parametrize("metric", [VocAP(CLASSES), CocoAP(CLASSES)])
def test_nothing_found_and_nothing_there(metric: VocAP | CocoAP) -> None:
    metrics = MetricCollection({"mAP": metric})
    boxes, scores = torch.zeros(1, 0, 4), torch.zeros(1, 0, CLASSES + 1)
    for number, truth in enumerate(([], [(0, False, A)])):
        metrics.update((boxes, scores), collate([objects(truth)], [number]))
        assert set(map(float, metrics.compute().values())) == {0.0}


@pytest.mark.parametrize("metric", [VocAP(CLASSES), CocoAP(CLASSES)])
def test_other_outputs_are_refused(metric: VocAP | CocoAP) -> None:
    targets = collate([objects([]), objects([])], [0, 1])
    for shapes in (
        ((2, 3),),
        ((2, 3, 4), (2, 3, 3)),
        ((2, 3, 5), (2, 3, 4)),
        ((2, 3, 4), (2, 2, 4)),
        ((2, 4),) * 2,
    ):
        with pytest.raises(ValueError, match="should be boxes"):
            metric.update(tuple(torch.zeros(shape) for shape in shapes), targets)
    with pytest.raises(ValueError, match="should be boxes"):
        metric.update(torch.zeros(2, 4), targets)
