"""The loader on tiny files in both formats, and on damaged and hostile ones."""

import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainers.tasks.cifar_files import python_batch, text, tiny, write_binary, write_python
from trainers.models import create_model
from trainers.tasks import DataError, tasks
from trainers.tasks.cifar10 import MEAN, SHIFT, STD, Cifar10
from trainers.tasks.images import mirror, shift

Write = Callable[[Path], None]


@pytest.mark.parametrize("write", [write_python, write_binary])
def test_batches(tmp_path: Path, write: Write) -> None:
    write(tmp_path)
    task = tasks["cifar10"](tmp_path)
    assert task.splits == {"train": 20, "test": 4}
    images, labels = task.batch("train", [3, 0, 6])
    assert (images.shape, images.dtype, labels.tolist()) == ((3, 3, 32, 32), torch.float32, [3, 0, 2])
    pixels = tiny(4, 2)[0][2].reshape(3, 32, 32) / 255
    expected = (pixels - np.array(MEAN)[:, None, None]) / np.array(STD)[:, None, None]
    np.testing.assert_allclose(images[2].numpy(), expected, rtol=1e-4, atol=1e-5)
    model = create_model("resnet20@small", num_classes=10, in_channels=3)
    task.loss(model(images), labels).backward()
    inner = next(tmp_path.iterdir())
    assert Cifar10(inner).identity == task.identity


def test_both_formats_are_one_set(tmp_path: Path) -> None:
    write_python(tmp_path)
    first = Cifar10(tmp_path).data
    write_binary(tmp_path)
    second = Cifar10(tmp_path).data
    for split in ("train", "test"):
        assert all(torch.equal(a, b) for a, b in zip(first[split], second[split], strict=True))


def test_pickles_of_python_3(tmp_path: Path) -> None:
    write_python(tmp_path)
    expected, labels = tiny(4, 0)
    for protocol in (2, 3, 4, 5):
        batch = {"data": expected, "labels": labels.tolist(), "filenames": ["a"] * 4}
        content = pickle.dumps(batch, protocol)
        (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(content)
        if protocol in (3, 4):  # the others have bytes as calls of functions or as buffers
            assert torch.equal(Cifar10(tmp_path).data["test"][0].flatten(1), torch.from_numpy(expected))
        else:
            with pytest.raises(DataError, match="should be a pickle with images"):
                Cifar10(tmp_path)


def test_the_generator_shifts_and_mirrors(tmp_path: Path) -> None:
    write_binary(tmp_path)
    task = Cifar10(tmp_path)
    first, again, other = (
        task.batch("train", range(20), torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_one_shift_for_all_channels() -> None:
    images = torch.arange(3 * 64, dtype=torch.uint8).view(1, 3, 8, 8).expand(300, -1, -1, -1) + 1
    generator = torch.Generator().manual_seed(0)
    found = {tuple(x.flatten().tolist()) for x in mirror(shift(images, 2, generator), generator)}
    padded = torch.nn.functional.pad(images[0], [2] * 4)
    possible = {
        tuple((view.flip(2) if mirrored else view).flatten().tolist())
        for row in range(5)
        for column in range(5)
        for view in [padded[:, row : row + 8, column : column + 8]]
        for mirrored in (False, True)
    }
    assert found == possible and len(possible) == 50 and SHIFT == 4


class Trap:
    """What a pickle of it would do when it is loaded by others."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch executed",)


PIXELS, LABELS = tiny(4, 0)
WHOLE = python_batch(PIXELS, LABELS.tolist())
BUFFER = b"\x96" + struct.pack("<Q", 1) + b"x"  # BYTEARRAY8, which takes memory before it reads
DAMAGED = {
    "empty": (b"", "it is damaged"),
    "truncated": (WHOLE[:9000], "it is damaged"),
    "cut in the labels": (WHOLE[:40], "it is damaged"),
    "no pickle": (b"\xff\xfe no pickle", "it is damaged"),
    "other keys": (pickle.dumps({"x": 1}, 2), "it is damaged"),
    "a list": (pickle.dumps([1, 2], 2), "it is damaged"),
    "hostile": (pickle.dumps({"labels": [0], "data": Trap()}, 2), "it asks for posix.system"),
    "hostile in a class": (b"\x80\x02cnumpy\nload\nU\x01x\x85R.", "it asks for numpy.load"),
    "builtins": (b"\x80\x02c__builtin__\neval\nU\x011\x85R.", "it asks for __builtin__.eval"),
    "a buffer": (WHOLE[:-2] + text(b"more") + BUFFER + b"u.", "it is damaged"),
    "in columns": (WHOLE.replace(b"\x89T", b"\x88T"), "its pixels are no bytes in rows"),
    "far in the memo": (b"\x80\x02}r\xff\xff\xff\xff.", "it is damaged"),
    "too few labels": (python_batch(PIXELS, [1, 2]), "it has 2 labels for 4 images"),
    "label 10": (python_batch(PIXELS, [1, 2, 10, 3]), "should have labels from 0 to 9"),
    "label -1": (python_batch(PIXELS, [1, 2, -1, 3]), "should have labels from 0 to 9"),
    "floats": (python_batch(PIXELS, LABELS.tolist(), b"f8"), "its pixels are no bytes in rows"),
    "narrow": (python_batch(PIXELS[:, :3071], LABELS.tolist()), r"its pixels are of shape \(4, 3071\)"),
    "no images": (python_batch(PIXELS[:0], []), "it has 0 labels for 0 images"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_pickles(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_python(tmp_path)
    content, sentence = DAMAGED[name]
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(content)
    with pytest.raises(DataError, match=rf"data_batch_3 should .*{sentence}|data_batch_3 {sentence}"):
        Cifar10(tmp_path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "should hold 3073 bytes for each image, label and pixels, but has 0 bytes"),
        (bytes(3072), "but has 3072 bytes"),
        (b"\x0a" + bytes(3072), "should have labels from 0 to 9, but they go to 10"),
    ],
)
def test_damaged_binary_files(tmp_path: Path, content: bytes, sentence: str) -> None:
    write_binary(tmp_path)
    (tmp_path / "cifar-10-batches-bin" / "test_batch.bin").write_bytes(content)
    with pytest.raises(DataError, match=f"test_batch.bin .*{sentence}"):
        Cifar10(tmp_path)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nor does .* CIFAR-10 is published at https"):
        Cifar10(tmp_path)
    with pytest.raises(DataError, match="get it from https"):
        Cifar10()
    write_python(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_4").unlink()
    with pytest.raises(DataError, match="no .*/data_batch_4. CIFAR-10 is published at https"):
        Cifar10(tmp_path)
