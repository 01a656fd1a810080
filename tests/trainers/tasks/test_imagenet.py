"""The loader on tiny folders, on broken images, and its crops against Pillow's and against a count."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trainers.tasks import DataError, tasks
from trainers.tasks.imagenet import MEAN, STD, ImageNet, crop_at_random, resize_and_crop


def picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes with three training images and one to test each, in all the modes of the real set."""
    for number, wnid in enumerate(("n01440764", "n02105855")):
        for split, count in (("train", 3), ("val", 1)):
            where = tmp_path / split / wnid
            where.mkdir(parents=True)
            for index in range(count):
                mode = ("RGB", "L", "CMYK")[index]
                picture(300 + 40 * number, 260, mode, index).save(where / f"{wnid}_{index}.JPEG", "JPEG")
    picture(50, 400).save(
        tmp_path / "train" / "n02105855" / "n02105855_2933.JPEG", "PNG"
    )  # there is one such
    (tmp_path / "train" / ".DS_Store").write_bytes(b"")
    (tmp_path / "train" / "n01440764" / "notes.txt").write_bytes(b"")
    return tmp_path


def test_batches(folder: Path) -> None:
    task = tasks["imagenet"](folder)
    assert task.splits == {"train": 7, "test": 2}
    assert (task.sizes["num_classes"], ImageNet.sizes["num_classes"]) == (2, 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images, labels = task.batch("train", [6, 0, 0, 2], torch.Generator().manual_seed(0))
        tested = task.batch("test", [1])
    assert (images.shape, images.dtype, labels.tolist()) == ((4, 3, 224, 224), torch.float32, [1, 0, 0, 0])
    assert not torch.equal(images[1], images[2])
    with Image.open(folder / "val" / "n02105855" / "n02105855_0.JPEG") as image:
        expected = np.asarray(resize_and_crop(image)) / 255
    expected = (expected - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(tested[0][0].movedim(0, 2).numpy(), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(task.batch("train", [0])[0], task.batch("train", [0])[0])
    assert task.identity == ImageNet(folder).identity
    assert task.loss(torch.zeros(4, 2), labels).item() == pytest.approx(np.log(2))


@pytest.mark.parametrize("size", [(300, 260), (260, 777), (256, 256), (100, 90)])
def test_the_middle(size: tuple[int, int]) -> None:
    image = picture(*size)
    width, height = (256 * side // min(size) for side in size)
    left, top = round((width - 224) / 2), round((height - 224) / 2)
    whole = image.resize((width, height), Image.Resampling.BILINEAR)
    expected = np.asarray(whole.crop((left, top, left + 224, top + 224)), int)
    assert np.abs(np.asarray(resize_and_crop(image), int) - expected).max() <= 1


def test_the_middle_of_a_thin_image() -> None:
    assert resize_and_crop(Image.new("RGB", (1, 60000))).size == (224, 224)


def test_crops_at_random() -> None:
    """Of an image whose pixels say where they are: area, aspect and mirroring are as they should be."""
    x, y = np.meshgrid(np.arange(200), np.arange(150))
    image = Image.fromarray(np.stack([x, y, 0 * x], 2).astype(np.uint8))
    areas, aspects, mirrored = [], [], []
    for draws in torch.rand(600, 41, generator=torch.Generator().manual_seed(0)).tolist():
        made = np.asarray(crop_at_random(image, draws), float)
        wide, high = (
            abs(made[112, 200, 0] - made[112, 24, 0]) * 224 / 176,
            made[200, 112, 1] - made[24, 112, 1],
        )
        high *= 224 / 176
        areas.append(wide * high / 30000)
        aspects.append(wide / high)
        mirrored.append(made[0, 0, 0] > made[0, -1, 0])
    assert 0.06 < min(areas) < 0.12 and 0.93 < max(areas) < 1.03
    assert 0.7 < min(aspects) < 0.8 and 1.25 < max(aspects) < 1.4
    assert 0.43 < np.mean(mirrored) < 0.57
    assert crop_at_random(Image.new("RGB", (1, 5000)), [0.5] * 41).size == (224, 224)


def bomb(extent: int) -> bytes:
    """The beginning of a PNG with so many pixels a side."""
    content = io.BytesIO()
    Image.new("L", (8, 8)).save(content, "PNG")
    header = b"IHDR" + struct.pack(">II", extent, extent) + content.getvalue()[24:29]
    return content.getvalue()[:12] + header + struct.pack(">I", zlib.crc32(header)) + content.getvalue()[33:]


def broken_files() -> dict[str, tuple[bytes, str]]:
    content = io.BytesIO()
    picture(300, 300).save(content, "JPEG")
    jpeg = content.getvalue()
    content = io.BytesIO()
    picture(300, 300).save(content, "GIF")
    return {
        "truncated": (jpeg[: len(jpeg) // 2], "it is damaged"),
        "empty": (b"", "it is neither a JPEG nor a PNG image"),
        "text": (b"<html>404</html>", "it is neither"),
        "a GIF": (content.getvalue(), "it is neither"),
        "a bomb": (bomb(11000), "it would take more than [0-9]+ pixels"),
        "a larger bomb": (bomb(60000), "it would take more than [0-9]+ pixels"),
        "gone": (b"", "it cannot be read: No such file or directory"),
    }


def test_broken_images_are_left_out(folder: Path) -> None:
    task = ImageNet(folder)
    whole = task.batch("train", [0, 1, 2], torch.Generator().manual_seed(3))
    path = folder / "train" / "n01440764" / "n01440764_1.JPEG"
    for name, (content, reason) in broken_files().items():
        path.write_bytes(content)
        if name == "gone":
            path.unlink()
        with pytest.warns(UserWarning, match=f"{path} is left out, because {reason}"):
            images, labels = task.batch("train", [0, 1, 2], torch.Generator().manual_seed(3))
        assert torch.equal(images, whole[0][[0, 2]]), name  # cropped as before
        assert labels.tolist() == [0, 0]
        with pytest.warns(UserWarning, match=reason):
            images, labels = task.batch("train", [1, 1], torch.Generator())
        assert (images.shape, labels.shape) == ((0, 3, 224, 224), (0,))


def test_what_is_not_the_set(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(DataError, match="get it at https://www.image-net"):
        ImageNet()
    with pytest.raises(DataError, match="There is no .*/val, .* published at https://www.image-net"):
        ImageNet(tmp_path / "nowhere")
    (folder / "val" / "n09999999").mkdir()
    with pytest.raises(DataError, match="val/n09999999 has no class of its name in .*/train"):
        ImageNet(folder)
    (tmp_path / "other" / "val" / "n01440764").mkdir(parents=True)
    with pytest.raises(DataError, match="val should hold a folder for each class"):
        ImageNet(tmp_path / "other")
    (tmp_path / "other" / "val" / "n01440764" / "a.JPEG").write_bytes(b"")
    with pytest.raises(DataError, match="other has images of one class, n01440764"):
        ImageNet(tmp_path / "other")


def test_evaluation_only(folder: Path) -> None:
    (folder / "train").rename(folder / "elsewhere")
    assert ImageNet(folder).splits == {"test": 2}
