"""The loader on a tiny set in VOC's files, and on damaged ones."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.trainers.tasks.test_imagenet import bomb, picture
from trainers.tasks import DataError, tasks
from trainers.tasks.imagenet import MEAN, STD
from trainers.tasks.voc07 import CLASSES, Voc07

CAT, PERSON = CLASSES.index("cat"), CLASSES.index("person")


def described(*objects: str) -> str:
    return f"<annotation><folder>VOC2007</folder>{''.join(objects)}</annotation>"


def an_object(name: str, box: str, more: str = "") -> str:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), box.split(), strict=True)
    corners = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return f"<object><name>{name}</name>{more}<bndbox>{corners}</bndbox></object>"


PART = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
DESCRIBED = {
    "000005": described(
        an_object("cat", "1 1 40 30"), an_object("person", "21 11 60 50", "<difficult>1</difficult>")
    ),
    "000007": described(an_object("person", "5 6 59.5 40", PART + "<difficult>0</difficult>")),
    "000009": described(an_object("cat", "11 11 50 50")),
    "000001": described(an_object("cat", "31 21 60 50")),
    "000002": described(),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three photographs of 80x50 and two to test with."""
    root = tmp_path / "VOCdevkit" / "VOC2007"
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / name).mkdir(parents=True)
    for seed, (name, content) in enumerate(DESCRIBED.items()):
        (root / "Annotations" / f"{name}.xml").write_text(content)
        picture(80, 50, seed=seed).save(root / "JPEGImages" / f"{name}.jpg")
    (root / "ImageSets" / "Main" / "trainval.txt").write_text("000005\n000007\n000009\n")
    (root / "ImageSets" / "Main" / "test.txt").write_text("000001 \r\n000002\n")
    return tmp_path


def test_batches(folder: Path) -> None:
    task = tasks["voc07"](folder)
    assert task.splits == {"train": 3, "test": 2}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images, targets = task.batch("train", [1, 0])
        tested = task.batch("test", [1])
    assert (images.shape, images.dtype) == ((2, 3, 300, 300), torch.float32)
    expected = [[[4, 5, 59.5, 40], [0, 0, 0, 0]], [[0, 0, 40, 30], [20, 10, 60, 50]]]
    pixels = targets["boxes"] * torch.tensor([80, 50, 80, 50])
    assert pixels.numpy() == pytest.approx(np.array(expected), abs=1e-4)
    assert targets["labels"].tolist() == [[PERSON, -1], [CAT, PERSON]]
    assert targets["difficult"].tolist() == [[False, False], [False, True]]
    assert targets["image"].tolist() == [1, 0]
    kinds = [targets[name].dtype for name in ("boxes", "labels", "difficult", "image")]
    assert kinds == [torch.float32, torch.int64, torch.bool, torch.int64]
    assert (tested[1]["boxes"].shape, tested[1]["labels"].tolist()) == ((1, 1, 4), [[-1]])
    path = folder / "VOCdevkit" / "VOC2007" / "JPEGImages" / "000007.jpg"
    with Image.open(path) as image:
        plain = np.asarray(image.resize((300, 300), Image.Resampling.BILINEAR)) / 255
    np.testing.assert_allclose(images[0].movedim(0, 2), (plain - MEAN) / STD, rtol=1e-4, atol=1e-5)
    assert task.identity == Voc07(folder / "VOCdevkit").identity == Voc07(path.parents[1]).identity
    assert Voc07.sizes["num_classes"] == 20 and task.example_inputs[0].shape == (1, 3, 300, 300)


def test_training_sees_views(folder: Path) -> None:
    task = tasks["voc07"](folder)
    first, again, other = (
        task.batch("train", [0, 0, 1] + 20 * [0], torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first[0], again[0]) and torch.equal(first[1]["boxes"], again[1]["boxes"])
    assert not torch.equal(first[0], other[0]) and not torch.equal(first[0][0], first[0][1])
    for _, targets in (first, other):
        real = targets["labels"] >= 0
        assert real.any(1).all()
        assert (targets["boxes"][real] >= 0).all() and (targets["boxes"][real] <= 1).all()
        assert (targets["boxes"][real][:, 2:] > targets["boxes"][real][:, :2]).all()
        assert torch.equal(
            targets["difficult"], (targets["labels"] == PERSON) & (targets["image"] == 0)[:, None]
        )


DEEP = 9999 * "<a>" + 9999 * "</a>"
BILLION = "<!DOCTYPE a [<!ENTITY b 'x'><!ENTITY c '&b;&b;'>]>" + described()
OUTSIDE = "<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><annotation>&b;</annotation>"
BROKEN = {
    "of its annotation .*/000007.xml: it is no XML": ["", "<annotation>", "annotation", described() * 2],
    "it declares a type of document": [BILLION, OUTSIDE, BILLION.encode("utf-16")],
    "object 2 should have one of VOC's 20 classes as its name, not 'dragon'": [
        described(an_object("cat", "1 1 9 9"), an_object("dragon", "1 1 9 9"))
    ],
    "object 1 should have one of VOC's 20 classes as its name, not ''": [
        described("<object/>"),
        described(DEEP, "<object/>"),
        described("<object><part><name>cat</name></part></object>"),
    ],
    "object 1 should have a bndbox with xmin, ymin, xmax, ymax": [
        described("<object><name>cat</name></object>"),
        described("<object><name>cat</name><bndbox><xmin>1</xmin></bndbox></object>"),
        described(an_object("cat", "1 1 9 nine")),
    ],
    "one of its boxes, .* is none within its 80x50 pixels": [
        described(an_object("cat", box))
        for box in (
            "1 1 90 40", "1 1 40 90", "-9 1 40 40", "40 1 20 40", "1 40 20 39", "500 500 600 600",
            "nan 1 40 40", "1 1 inf 40", "1 1 1e400 40", "10 10 9 40",
        )
    ],
    "it is larger than 1048576 bytes": [" " * (1 << 20) + described()],
}  # fmt: skip


@pytest.mark.parametrize("reason", BROKEN)
def test_broken_annotations_are_left_out(folder: Path, reason: str) -> None:
    task = Voc07(folder)
    whole = task.batch("train", [0, 1, 2], torch.Generator().manual_seed(3))
    path = folder / "VOCdevkit" / "VOC2007" / "Annotations" / "000007.xml"
    for content in BROKEN[reason]:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.warns(UserWarning, match=f"/000007.jpg is left out, because .*{reason}"):
            images, targets = task.batch("train", [0, 1, 2], torch.Generator().manual_seed(3))
        assert torch.equal(images, whole[0][[0, 2]])  # seen as before
        assert targets["image"].tolist() == [0, 2]
    path.unlink()
    with pytest.warns(UserWarning, match="its annotation .*/000007.xml cannot be read: No such file"):
        images, targets = task.batch("train", [1, 1])
    assert (images.shape, targets["boxes"].shape) == ((0, 3, 300, 300), (0, 1, 4))


def test_a_pixel_beyond_the_image_is_cut_off(folder: Path) -> None:
    path = folder / "VOCdevkit" / "VOC2007" / "Annotations" / "000007.xml"
    path.write_text(described(an_object("cat", "0 0 81 51")))
    assert Voc07(folder).batch("train", [1])[1]["boxes"].tolist() == [[[0, 0, 1, 1]]]


def test_broken_photographs_are_left_out(folder: Path) -> None:
    path = folder / "VOCdevkit" / "VOC2007" / "JPEGImages" / "000007.jpg"
    whole = path.read_bytes()
    for content, reason in (
        (whole[: len(whole) // 2], "it is damaged"),
        (b"<html>404</html>", "it is neither a JPEG nor a PNG image"),
        (bomb(60000), "it would take more than"),
        (None, "it cannot be read: No such file"),
    ):
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        with pytest.warns(UserWarning, match=f"{path} is left out, because {reason}"):
            assert Voc07(folder).batch("train", [0, 1])[1]["image"].tolist() == [0]
        path.touch()
    assert Voc07(folder).identity


def test_what_is_not_the_set(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(DataError, match="get it at http://host.robots.ox.ac.uk"):
        Voc07()
    with pytest.raises(DataError, match="There is no .*/test.txt. VOC is published at http"):
        Voc07(tmp_path / "nowhere")
    root = folder / "VOCdevkit" / "VOC2007"
    names = root / "ImageSets" / "Main" / "trainval.txt"
    for name in ("../../secret", "/etc/passwd", "000005.xml", "-"):
        names.write_text(f"000005\n{name}\n")
        with pytest.raises(DataError, match=f"trainval.txt should have a name .* and not '{name}'"):
            Voc07(folder)
    names.write_text("000099\n")
    with pytest.raises(DataError, match="There is no .*/000099.xml, nor any other"):
        Voc07(folder)
    names.unlink()
    assert Voc07(folder).splits == {"test": 2}
    (root / "JPEGImages").rename(root / "elsewhere")
    with pytest.raises(
        DataError, match="JPEGImages cannot be read: No such file or directory. VOC is published"
    ):
        Voc07(folder)


def test_the_loss_is_the_network_s(folder: Path) -> None:
    with pytest.raises(ValueError, match="The network has no loss for boxes"):
        Voc07(folder).loss(None, None)
