"""Images for an accuracy: what a file has to hold."""

from pathlib import Path

import numpy as np
import pytest

from bibench_tvm.cli.images import load_images
from bibench_tvm.importer.bundled import IMAGES

GOOD = {
    "images": np.zeros((3, 2, 4, 4), np.uint8),
    "labels": np.arange(3),
    "mean": np.float32(0.5),
    "std": np.asarray([1, 2], np.float32),
}


def test_the_bundled_images() -> None:
    images, labels = load_images(IMAGES)
    assert (images.shape, images.dtype, labels.shape, labels.dtype) == (
        (300, 1, 32, 32),
        "float32",
        (300,),
        "int64",
    )
    assert set(labels) == {*range(10)}
    assert abs(images[:, :, 2:30, 2:30].mean()) < 0.1 and abs(images[:, :, 2:30, 2:30].std() - 1) < 0.1


def test_mean_and_std_may_be_of_each_channel(tmp_path: Path) -> None:
    np.savez(tmp_path / "i.npz", **GOOD)
    images, _ = load_images(tmp_path / "i.npz")
    assert images[0, :, 0, 0].tolist() == [-0.5, -0.25]


@pytest.mark.parametrize("content", [b"", b"no zip", None])
def test_damaged_files(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "i.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"i\.npz"):
        load_images(path)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("images", np.zeros((3, 4, 4), np.uint8), "should hold images uint8"),
        ("images", np.zeros((3, 2, 4, 4), np.float32), "should hold images uint8"),
        ("images", np.zeros((0, 2, 4, 4), np.uint8), "should hold images uint8"),
        ("labels", np.arange(2), "should hold 3 integers as labels"),
        ("labels", np.ones(3), "should hold 3 integers as labels"),
        ("mean", np.zeros(3), "should hold as mean one number, or 2"),
        ("std", np.zeros(2), "should hold as std"),
        ("std", np.asarray([1, np.nan]), "should hold as std"),
        ("std", None, "is not a whole"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, field: str, value: object, sentence: str) -> None:
    fields = {**GOOD, field: value}
    np.savez(tmp_path / "i.npz", **{k: v for k, v in fields.items() if v is not None})
    with pytest.raises(ValueError, match=sentence):
        load_images(tmp_path / "i.npz")
