"""The clouds that are made, and their parts."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from trainers.models import create_model
from trainers.tasks import DataError, tasks
from trainers.tasks.parametric_clouds import CATEGORIES, PARTS, make_clouds
from trainers.tasks.standin_parts import StandinParts
from trainers.tasks.standin_points import StandinPoints


@pytest.fixture(scope="module")
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainers.tasks.standin_points.COUNTS", {"train": 100, "test": 20})
        yield


@pytest.fixture(scope="module")
def points(small: None) -> StandinPoints:
    return StandinPoints()


@pytest.fixture(scope="module")
def parts(small: None) -> StandinParts:
    return StandinParts()


def test_batches_of_clouds(points: StandinPoints) -> None:
    clouds, categories = points.batch("train", [3, 0, 99])
    assert points.splits == {"train": 100, "test": 20}
    assert (clouds.shape, clouds.dtype, categories.tolist()) == ((3, 3, 128), torch.float32, [3, 0, 9])
    assert not torch.equal(points.batch("test", [0])[0], points.batch("train", [0])[0])
    loss = points.loss(create_model("pointnet_vanilla@small", **points.sizes)(clouds), categories)
    loss.backward()
    assert points.metric in points.metrics()


def test_batches_of_parts(parts: StandinParts, points: StandinPoints) -> None:
    clouds, labels = parts.batch("test", range(20))
    assert (clouds.shape, labels.shape, labels.dtype) == ((20, 3, 128), (20, 128), torch.int64)
    assert not torch.equal(clouds, points.batch("test", range(20))[0])  # which have more noise
    first = np.cumsum([0, *PARTS])
    for index, row in enumerate(labels.tolist()):
        assert set(row) <= set(range(first[index % 10], first[index % 10 + 1]))
    outputs = create_model("pointnet_vanilla@small", **parts.sizes)(clouds)
    assert outputs.shape == (20, 28, 128)
    parts.loss(outputs, labels).backward()
    metrics = parts.metrics()
    metrics.update(torch.nn.functional.one_hot(labels, 28).transpose(1, 2).float(), labels)
    assert metrics.compute() == {"class_miou": 1, "instance_miou": 1}
    assert parts.metric in metrics


def test_what_is_made() -> None:
    assert (len(CATEGORIES), sum(PARTS)) == (10, 28)
    clouds, categories, labels = make_clouds(200, 128, 5, noise=0)
    assert np.abs(np.linalg.norm(clouds, axis=1).max(1) - 1).max() < 1e-5
    assert np.abs(clouds.mean(2)).max() < 1e-5
    assert set(labels.ravel()) == set(range(28))
    again, other = make_clouds(200, 128, 5, noise=0), make_clouds(200, 128, 6, noise=0)
    assert np.array_equal(clouds, again[0]) and np.array_equal(labels, again[2])
    assert not np.array_equal(clouds, other[0])
    assert np.array_equal(make_clouds(30, 128, 5, noise=0)[0], clouds[:30])


def test_parts_are_where_they_belong() -> None:
    clouds, _, labels = make_clouds(100, 128, 0, noise=0)
    first = np.cumsum([0, *PARTS])
    for index, (below, above) in {9: (1, 0), 5: (0, 2), 8: (0, 1)}.items():  # tables, lamps, rockets
        for cloud, row in zip(clouds[index::10], labels[index::10], strict=True):
            heights = [cloud[1, row == first[index] + part].mean() for part in (below, above)]
            assert heights[0] < heights[1]


def test_the_generator_turns_and_jitters(points: StandinPoints) -> None:
    plain = points.batch("train", range(8))[0]
    first, again, other = (
        points.batch("train", range(8), torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert 0 < (first[:, 1] - plain[:, 1]).abs().max() <= 0.0501  # which points up
    radii = [clouds[:, ::2].norm(dim=1) for clouds in (first, plain)]
    assert (radii[0] - radii[1]).abs().max() < 0.08
    assert (first - plain).abs().max() > 0.5


def test_the_identity_is_of_the_content(points: StandinPoints, monkeypatch: pytest.MonkeyPatch) -> None:
    assert StandinPoints().identity == points.identity
    monkeypatch.setattr("trainers.tasks.standin_points.POINTS", 127)
    assert StandinPoints().identity != points.identity


def test_nothing_is_read(tmp_path: Path) -> None:
    for name in ("standin_points", "standin_parts"):
        with pytest.raises(DataError, match="leave the folder .* out"):
            tasks[name](tmp_path)
        assert "stand-in" in tasks[name].licence and "stand-in" in tasks[name].published
