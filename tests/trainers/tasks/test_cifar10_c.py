"""The loader on tiny published arrays, on CIFAR-10's test images, on damaged files; and the stand-in."""

import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.trainers.tasks.cifar_files import tiny, write_binary, write_python
from trainers.tasks import DataError, tasks
from trainers.tasks.cifar10 import Cifar10
from trainers.tasks.cifar10_c import Cifar10C
from trainers.tasks.corruptions import corrupt
from trainers.tasks.severities import CIFAR10_C
from trainers.tasks.standin_corruptions import StandinCorruptions


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    """The files for three images; pixel 0 of image i, corruption c and severity s + 1 is 10 c + 3 s + i."""
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    for number, name in enumerate(CIFAR10_C):
        values = np.zeros((15, 32, 32, 3), np.uint8)
        values[:, 0, 0, 0] = (10 * number + np.repeat(np.arange(5), 3) * 3 + np.tile(np.arange(3), 5)) % 256
        values[:, 5, 6, 2] = 9
        np.save(folder / f"{name}.npy", values)
    np.save(folder / "labels.npy", np.tile(np.array([3, 8, 0], np.uint8), 5))
    return tmp_path


def test_the_published_arrays(arrays: Path) -> None:
    task = tasks["cifar10_c"](arrays)
    assert len(task.splits) == 95 and set(task.splits.values()) == {3} and "train" not in task.splits
    images, labels = task.batch("shot_noise/4", [2, 0])
    assert (images.shape, images.dtype, labels.tolist()) == ((2, 3, 32, 32), torch.float32, [0, 3])
    pixels = (images[:, 0, 0, 0] * 0.2470 + 0.4914) * 255
    assert pixels.tolist() == pytest.approx([10 + 9 + 2, 10 + 9], abs=1e-2)
    assert ((images[:, 2, 5, 6] * 0.2616 + 0.4465) * 255).tolist() == pytest.approx([9, 9], abs=1e-2)
    assert not any(isinstance(value, np.ndarray) for value in vars(task).values())  # they stay on disk
    assert pickle.loads(pickle.dumps(task)).batch("fog/1", [0])[0].shape == (1, 3, 32, 32)
    assert Cifar10C(arrays / "CIFAR-10-C").identity == task.identity


@pytest.mark.parametrize("write", [write_python, write_binary])
def test_made_from_the_test_images(tmp_path: Path, write: object) -> None:
    write(tmp_path)  # type: ignore[operator]
    task = Cifar10C(tmp_path)
    assert len(task.splits) == 95 and set(task.splits.values()) == {4}
    images, labels = task.batch("fog/2", [3, 1])
    assert labels.tolist() == [3, 1]
    assert torch.equal(images[1:], task.batch("fog/2", [1])[0])
    assert not torch.equal(images[1:], task.batch("fog/3", [1])[0])
    plain = tiny(4, 0)[0][3].reshape(3, 32, 32).transpose(1, 2, 0)
    found = (images[0] * torch.tensor([0.2470, 0.2435, 0.2616]).view(3, 1, 1)) * 255
    found += torch.tensor([0.4914, 0.4822, 0.4465]).view(3, 1, 1) * 255
    np.testing.assert_allclose(found.movedim(0, 2).numpy(), corrupt(plain, "fog", 2, 3), atol=1e-3)
    assert task.identity != Cifar10(tmp_path).identity


def test_pictures_of_frost(tmp_path: Path) -> None:
    write_binary(tmp_path)
    before = Cifar10C(tmp_path)
    (tmp_path / "frost").mkdir()
    Image.new("RGB", (300, 300), (255, 255, 255)).save(tmp_path / "frost" / "frost1.png")
    after = Cifar10C(tmp_path)
    assert before.identity != after.identity
    assert not torch.equal(before.batch("frost/1", [0])[0], after.batch("frost/1", [0])[0])
    assert torch.equal(before.batch("fog/1", [0])[0], after.batch("fog/1", [0])[0])


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch executed",)


def objects() -> bytes:
    content = io.BytesIO()
    np.save(content, np.array([Trap()], dtype=object), allow_pickle=True)
    return content.getvalue()


def archive() -> bytes:
    content = io.BytesIO()
    np.savez(content, np.zeros(3))
    return content.getvalue()


def test_damaged_arrays(arrays: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(arrays)
    path = arrays / "CIFAR-10-C" / "fog.npy"
    whole = path.read_bytes()
    for content in (b"", b"\x93NUMPY", whole[:1000], objects(), pickle.dumps(Trap()), archive()):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"{path} should be an array that numpy saved whole"):
            Cifar10C(arrays)
    assert not (arrays / "executed").exists()
    for array in (
        np.zeros((12, 32, 32, 3), np.uint8),
        np.zeros((15, 3, 32, 32), np.uint8),
        np.zeros((15, 32, 32, 3), np.float32),
    ):
        np.save(path, array)
        with pytest.raises(DataError, match=rf"{path} should hold bytes of shape \(15, 32, 32, 3\)"):
            Cifar10C(arrays)
    path.unlink()
    with pytest.raises(DataError, match=f"There is no {path}. CIFAR-10-C is published at https"):
        Cifar10C(arrays)


def test_damaged_labels(arrays: Path) -> None:
    path = arrays / "CIFAR-10-C" / "labels.npy"
    for labels in (
        np.arange(15).astype(np.uint8) % 10,  # other ones for each severity
        np.full(15, 10, np.uint8),
        np.zeros(14, np.uint8),
        np.zeros(0, np.uint8),
        np.zeros((15, 1), np.uint8),
        np.zeros(15),
    ):
        np.save(path, labels)
        with pytest.raises(DataError, match=f"{path} should hold labels from 0 to 9"):
            Cifar10C(arrays)
    path.unlink()
    with pytest.raises(DataError, match=f"There is no {path}"):
        Cifar10C(arrays)


def test_what_is_not_the_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="get it at https"):
        Cifar10C()
    with pytest.raises(DataError, match="has none of the arrays .*zenodo.* CIFAR-10 is published at https"):
        Cifar10C(tmp_path)


def test_the_stand_in(fashion_mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIBENCH_DATA", str(tmp_path))
    task = tasks["standin_corruptions"](fashion_mnist)
    plain = tasks["fashion_mnist"](fashion_mnist).batch("test", [4, 2])
    assert len(task.splits) == 95 and set(task.splits.values()) == {10}
    for split in task.splits:
        images, labels = task.batch(split, [4, 2])
        assert (images.shape, images.dtype) == (plain[0].shape, torch.float32)
        assert torch.equal(labels, plain[1])
        assert not torch.equal(images, plain[0]) or split.startswith("saturate/")  # a grey has no colour
    assert "stand-in" in StandinCorruptions.published
    made, _ = task.batch("fog/3", [4, 2])
    (kept,) = tmp_path.rglob("fog-3.pt")
    torch.save(torch.zeros(10, 1, 32, 32, dtype=torch.uint8), kept)
    assert not torch.equal(task.batch("fog/3", [4, 2])[0], made)  # what is kept is read
    for damaged in (b"", b"PK\x03\x04", kept.read_bytes()[:500]):
        kept.write_bytes(damaged)
        assert torch.equal(task.batch("fog/3", [4, 2])[0], made)
    torch.save(torch.zeros(3), kept)
    assert torch.equal(task.batch("fog/3", [4, 2])[0], made)
