"""The reader on tiny files of the format, and on the whole data set where it is installed."""

import gzip
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bibench_tvm.cli.images import load_images
from tests.trainers.idx import idx
from trainers.tasks import DataError, tasks
from trainers.tasks.fashion_mnist import (
    FOLDER,
    FashionMnist,
    normalise,
    read_idx,
    write_sample_images,
)


def test_batches(fashion_mnist: Path) -> None:
    task = tasks["fashion_mnist"](fashion_mnist)
    assert task.splits == {"train": 20, "test": 10}
    images, labels = task.batch("train", [3, 0, 13, 19])
    assert (images.shape, images.dtype, labels.dtype) == ((4, 1, 32, 32), torch.float32, torch.int64)
    assert labels.tolist() == [3, 0, 3, 9]
    assert torch.equal(images[1:2], task.batch("train", [0])[0])
    assert task.example_inputs[0].shape == images[:1].shape


def test_loss_and_metrics(fashion_mnist: Path) -> None:
    task = tasks["fashion_mnist"](fashion_mnist)
    outputs, targets = torch.tensor([[0.0, 1.0], [0.0, 1.0], [2.0, 1.0]]), torch.tensor([1, 0, 0])
    outputs = F.pad(outputs, (0, 8), value=-torch.inf)
    e = math.e
    expected = -math.log(e / (1 + e)) * 2 / 3 - math.log(1 / (1 + e)) / 3
    assert task.loss(outputs, targets).item() == pytest.approx(expected)
    metrics = task.metrics()
    metrics.update(outputs, targets)
    metrics.update(outputs[:1], targets[:1])
    assert metrics.compute() == {task.metric: 0.75}


def test_the_generator_augments(fashion_mnist: Path) -> None:
    task = tasks["fashion_mnist"](fashion_mnist)
    before = torch.get_rng_state()
    first, again, other = (
        task.batch("train", range(20), torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_identity_is_of_the_content(fashion_mnist: Path) -> None:
    before = tasks["fashion_mnist"](fashion_mnist).identity
    assert tasks["fashion_mnist"](fashion_mnist).identity == before
    labels = fashion_mnist / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(idx(np.arange(20) % 9)))
    assert tasks["fashion_mnist"](fashion_mnist).identity != before


def test_training_shifts_by_a_pixel_and_mirrors_nothing(fashion_mnist: Path) -> None:
    task = FashionMnist(fashion_mnist)
    image = torch.zeros(20, 1, 32, 32, dtype=torch.uint8)
    image[:, 0, 10, 5] = 9
    task.data["train"] = (image, torch.zeros(20, dtype=torch.int64))
    generator = torch.Generator().manual_seed(0)
    images, _ = task.batch("train", [0] * 200, generator)
    seen = {tuple(place[2:].tolist()) for place in (images > images.min()).nonzero()}
    assert seen == {(row, column) for row in (9, 10, 11) for column in (4, 5, 6)}


def test_sample_images(fashion_mnist: Path, tmp_path: Path) -> None:
    task = tasks["fashion_mnist"](fashion_mnist)
    write_sample_images(tmp_path / "s.npz", 6, fashion_mnist)
    images, labels = load_images(tmp_path / "s.npz")
    assert (images.dtype, images.shape, labels.dtype) == (np.float32, (6, 1, 32, 32), np.int64)
    expected = task.batch("test", range(6))
    np.testing.assert_allclose(images, expected[0].numpy(), rtol=1e-6)
    assert labels.tolist() == expected[1].tolist()
    assert "MIT" in str(np.load(tmp_path / "s.npz")["licence"])


def test_a_missing_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Debian.s dataset-fashion-mnist"):
        tasks["fashion_mnist"](tmp_path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"plain", "is not a whole gzip file"),
        (gzip.compress(bytes(100), mtime=0)[:-9], "is not a whole gzip file"),
        (gzip.compress(b"\0\0", mtime=0), "is not an idx file"),
        (gzip.compress(b"\0\0\x0d\1\0\0\0\1\0\0\0\0", mtime=0), "is not an idx file of unsigned bytes"),
        (gzip.compress(b"\0\0\x08\3\0\0\0\1", mtime=0), "ends within its header"),
        (
            gzip.compress(b"\0\0\x08\1\0\0\0\5abcd", mtime=0),
            r"should hold 5 values for its shape \(5,\), not 4",
        ),
    ],
    ids=["plain", "cut", "short", "floats", "no header", "too few"],
)
def test_damaged_files(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "f.gz").write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        read_idx(tmp_path / "f.gz")


def test_files_that_do_not_belong_together(fashion_mnist: Path) -> None:
    (fashion_mnist / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros(3))))
    with pytest.raises(DataError, match="as many labels"):
        tasks["fashion_mnist"](fashion_mnist)


def test_the_whole_data_set() -> None:
    """Fails, with the line to type, where run_tests.sh did not install it."""
    tasks["fashion_mnist"]()
    images = torch.from_numpy(read_idx(FOLDER / "train-images-idx3-ubyte.gz").copy())
    assert images.shape == (60000, 28, 28)
    assert normalise(images).mean().abs() < 1e-3
    assert (normalise(images).std() - 1).abs() < 1e-3
