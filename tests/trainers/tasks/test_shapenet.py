"""The loader on a tiny set in the text format, and on damaged files of it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from trainers.models import create_model
from trainers.tasks import DataError, tasks
from trainers.tasks.shapenet import CATEGORIES, NAME, ShapeNet

SYNSETS = {"Airplane": ("02691156", 0, 4), "Mug": ("03797390", 36, 2), "Table": ("04379243", 47, 3)}


def shape(first: int, parts: int, points: int, seed: int) -> str:
    random = np.random.default_rng(seed)
    values = random.normal(size=(points, 6))
    labels = first + random.integers(0, parts, points)
    return "".join(
        " ".join(f"{value:.5f}" for value in row) + f" {label:.6f}\n"
        for row, label in zip(values, labels, strict=True)
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three categories with two shapes for training and one each for validation and testing."""
    root = tmp_path / NAME
    (root / "train_test_split").mkdir(parents=True)
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for seed, (synset, first, parts) in enumerate(SYNSETS.values()):
        (root / synset).mkdir()
        for number, split in enumerate(("train", "train", "val", "test")):
            points = 40 if number == 1 else 1100  # fewer than are drawn, and more
            (root / synset / f"1a{number}.txt").write_text(shape(first, parts, points, 10 * seed + number))
            lists[split].append(f"shape_data/{synset}/1a{number}")
    for split, names in lists.items():
        (root / "train_test_split" / f"shuffled_{split}_file_list.json").write_text(json.dumps(names))
    lines = [f"{name}\t{synset}\n" for name, (synset, _, _) in SYNSETS.items()]
    (root / "synsetoffset2category.txt").write_text("".join(lines))
    return tmp_path


def test_batches(folder: Path) -> None:
    task = tasks["shapenet"](folder)
    assert (len(CATEGORIES), task.sizes["parts"]) == (16, 50)
    assert task.splits == {"train": 6, "validation": 3, "test": 3}
    clouds, parts = task.batch("train", [0, 5, 3])
    assert (clouds.shape, clouds.dtype) == ((3, 3, 1024), torch.float32)
    assert (parts.shape, parts.dtype) == ((3, 1024), torch.int64)
    assert [set(row.tolist()) for row in parts] == [{0, 1, 2, 3}, {47, 48, 49}, {36, 37}]
    assert clouds.norm(dim=1).amax() <= 1 + 1e-5
    assert torch.equal(clouds, ShapeNet(folder / NAME).batch("train", [0, 5, 3])[0])
    first, again, other = (
        task.batch("train", [0, 1], torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    outputs = create_model("pointnet_vanilla@small", **task.sizes)(clouds)
    task.loss(outputs, parts).backward()
    metrics = task.metrics()
    metrics.update(torch.nn.functional.one_hot(parts, 50).transpose(1, 2).float(), parts)
    assert metrics.compute()[task.metric] == 1


def test_points_keep_their_parts(folder: Path) -> None:
    path = folder / NAME / "03797390" / "1a3.txt"
    rows = np.random.default_rng(0).uniform(-1, 1, (1500, 7))
    rows[:, 6] = 36 + (rows[:, 1] > rows[:, 1].mean())
    np.savetxt(path, rows)
    clouds, parts = ShapeNet(folder).batch("test", [1])
    assert torch.equal(parts[0] == 37, clouds[0, 1] > 0)


DAMAGED = {
    "empty": (b"", "not every line has seven numbers"),
    "not UTF-8": (b"\xff\xfe\x00 1 2 3 4 5 6\n", "not every line has seven numbers"),
    "six numbers": (b"1 2 3 4 5 6\n", "not every line has seven numbers"),
    "truncated": (shape(0, 4, 50, 0).encode()[:-20], "not every line has seven numbers"),
    "nan": (b"1 2 nan 0 0 1 2\n", "it has coordinates that are no numbers"),
    "another category's part": (b"1 2 3 0 0 1 5\n", "its parts should be from 0 to 3"),
    "half a part": (b"1 2 3 0 0 1 1.5\n", "its parts should be from 0 to 3"),
    "no part": (b"1 2 3 0 0 1 nan\n", "its parts should be from 0 to 3"),
}


@pytest.mark.parametrize("name", [*DAMAGED, "gone"])
def test_damaged_shapes_are_left_out(folder: Path, name: str) -> None:
    path = folder / NAME / "02691156" / "1a0.txt"
    content, reason = DAMAGED.get(name, (b"", "it cannot be read: No such file or directory"))
    path.write_bytes(content)
    if name == "gone":
        path.unlink()
    task = ShapeNet(folder)
    with pytest.warns(UserWarning, match=f"{path} is left out, because {reason}"):
        clouds, parts = task.batch("train", [0, 2])
    assert clouds.shape == (1, 3, 1024) and parts.unique().tolist() == [36, 37]
    with pytest.warns(UserWarning, match=reason):
        clouds, parts = task.batch("train", [0, 0], torch.Generator())
    assert (clouds.shape, parts.shape) == ((0, 3, 1024), (0, 1024))


def test_damaged_lists(folder: Path) -> None:
    path = folder / NAME / "train_test_split" / "shuffled_val_file_list.json"
    for content, sentence in (
        (b"", "should be a JSON list"),
        (b"\xff", "should be a text in UTF-8"),
        (b"[1, 2]", "should be a JSON list"),
        (b"3", "should be a JSON list"),
        (b"[" * 100000, "should be a JSON list"),
        (b"[]", "should list shapes such as"),
        (b'["shape_data/02691156/../../secret"]', "should list shapes such as"),
        (b'["/etc/passwd"]', "should list shapes such as"),
        (b'["shape_data/99999999/1a0"]', "should list shapes such as"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"{path} {sentence}"):
            ShapeNet(folder)
    path.unlink()
    with pytest.raises(DataError, match=f"There is no {path}. .* published at https"):
        ShapeNet(folder)


def test_damaged_categories(folder: Path) -> None:
    path = folder / NAME / "synsetoffset2category.txt"
    for content in (b"Airplane", b"Spaceship\t02691156\n", b"Airplane\t../02691156\n"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="should have lines such as `Airplane 02691156`"):
            ShapeNet(folder)
    path.write_bytes(b"\xff")
    with pytest.raises(DataError, match="should be a text in UTF-8"):
        ShapeNet(folder)


def test_what_is_not_the_set(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="get it at https"):
        ShapeNet()
    with pytest.raises(DataError, match="There is no .*synsetoffset2category.txt. .* published at https"):
        ShapeNet(tmp_path / "nowhere")
    for synset, _, _ in SYNSETS.values():
        (folder / NAME / synset).rename(folder / NAME / f"{synset}_")
    with pytest.raises(DataError, match=r"There is no .*02691156/1a0.txt. .* published at https"):
        ShapeNet(folder)
