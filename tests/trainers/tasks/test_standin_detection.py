"""The images that are made, with a tiny Fashion-MNIST."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainers.idx import write_fashion_mnist
from trainers.boxes import iou
from trainers.tasks import DataError, tasks
from trainers.tasks.standin_detection import CLASSES, COUNTS, StandinDetection


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fashion")
    write_fashion_mnist(folder, 200, 40)
    return folder


@pytest.fixture(scope="module")
def task(folder: Path) -> StandinDetection:
    return StandinDetection(folder)


def test_batches(task: StandinDetection) -> None:
    images, targets = task.batch("train", list(range(80)))
    assert task.splits == COUNTS
    assert (images.shape, images.dtype) == ((80, 3, 128, 128), torch.float32)
    assert images[0].shape == task.example_inputs[0][0].shape
    real = targets["labels"] >= 0
    assert {1, 2} < set(real.sum(1).tolist()) <= {1, 2, 3, 4}
    assert set(targets["labels"][real].tolist()) == set(range(len(CLASSES)))
    boxes = targets["boxes"][real] * 128
    assert torch.equal(boxes, boxes.round()) and boxes.min() >= 0 and boxes.max() <= 128
    longer = (boxes[:, 2:] - boxes[:, :2]).amax(1)
    assert 40 <= longer.min() < 48 and 64 < longer.max() <= 72
    for own in targets["boxes"]:
        assert (iou(own, own).triu(1) <= 0.0501).all()
    assert not targets["difficult"].any() and targets["image"].tolist() == list(range(80))


def test_images_are_of_their_place_or_of_the_generator(task: StandinDetection, folder: Path) -> None:
    plain = task.batch("train", [5, 6, 5])[0]
    assert torch.equal(plain[0], plain[2]) and torch.equal(
        plain[:2], StandinDetection(folder).batch("train", [5, 6])[0]
    )
    assert not torch.equal(plain[0], plain[1])
    assert not torch.equal(plain[0], task.batch("test", [5])[0][0])
    first, again, other = (
        task.batch("train", [5, 5], torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first[0], again[0]) and torch.equal(first[1]["boxes"], again[1]["boxes"])
    assert not torch.equal(first[0], other[0]) and not torch.equal(first[0][0], first[0][1])


def test_a_box_holds_its_item(task: StandinDetection, monkeypatch: pytest.MonkeyPatch) -> None:
    """On black ground all that is not black is in boxes, and reaches each side of each."""
    monkeypatch.setattr(task, "grounds", {"test": np.zeros((1, 128, 128, 3), np.uint8)})
    for index in range(10):
        image, objects = task.make("test", np.random.default_rng(index))
        light = image.max(2)
        for x1, y1, x2, y2 in (objects.boxes * 128).int().tolist():
            item = light[y1:y2, x1:x2] > 0
            assert item[:2].any() and item[-2:].any() and item[:, :2].any() and item[:, -2:].any()
        for x1, y1, x2, y2 in (objects.boxes * 128).int().tolist():
            light[y1:y2, x1:x2] = 0
        assert not light.any()


def test_splits_share_neither_items_nor_training_ground(task: StandinDetection) -> None:
    assert len(task.items["train"][1]) + len(task.items["validation"][1]) == 100  # half of ten classes
    assert task.grounds["train"].shape[2] + task.grounds["test"].shape[2] == 640


def test_the_identity_and_the_licence(task: StandinDetection, folder: Path, tmp_path: Path) -> None:
    assert StandinDetection(folder).identity == task.identity
    write_fashion_mnist(tmp_path, 100, 40)
    assert StandinDetection(tmp_path).identity != task.identity
    assert "MIT" in task.licence and "CC BY 2.0" in task.licence and "stand-in" in task.licence
    assert tasks["standin_detection"] is StandinDetection and "stand-in" in task.published
    with pytest.raises(DataError, match="There is no .*ubyte.gz"):
        StandinDetection(tmp_path / "nowhere")


def test_a_perfect_network(task: StandinDetection) -> None:
    targets = task.batch("test", list(range(20)))[1]
    scores = torch.nn.functional.one_hot(targets["labels"] + 1, 6).float()
    metrics = task.metrics()
    metrics.update((targets["boxes"], scores), targets)
    assert metrics.compute() == {task.metric: 1}
