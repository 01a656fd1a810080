"""A stand-in for ModelNet40, made here: the clouds of `parametric_clouds`, to be told apart by category."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainers.tasks import DataError, tasks
from trainers.tasks.classes import Classification
from trainers.tasks.clouds import jitter, turn
from trainers.tasks.parametric_clouds import CATEGORIES, NOISE, make_clouds

POINTS = 128
COUNTS = {"train": 2000, "validation": 500, "test": 500}


class StandinClouds:
    """All the clouds, in memory: 5 MB. The folder `data` has to be left out, since nothing is read.

    Their noise is such that a small float PointNet is right about 95 % of the categories.
    """

    noise = NOISE

    example_inputs: Any = (torch.zeros(1, 3, POINTS),)
    epochs = 12
    batch_size = 64
    licence = "Apache-2.0, as the program that makes them: a stand-in, whose figures compare with no paper's."
    published = (
        "Nowhere: a stand-in for ModelNet40 and ShapeNet, made by trainers/tasks/parametric_clouds.py."
    )

    def __init__(self, data: Path | None = None) -> None:
        if data is not None:
            raise DataError(f"A stand-in of point clouds is made and not read; leave the folder {data} out.")
        digest, self.data = hashlib.sha256(), {}
        for seed, (split, count) in enumerate(COUNTS.items()):
            arrays = make_clouds(count, POINTS, seed, self.noise)
            for array in arrays:
                digest.update(array.tobytes())
            self.data[split] = tuple(torch.from_numpy(array) for array in arrays)
        self.identity = digest.hexdigest()

    @property
    def splits(self) -> Mapping[str, int]:
        return COUNTS

    def take(
        self, split: str, indices: Sequence[int], generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Clouds (N, 3, points), categories (N,), parts (N, points)."""
        clouds, categories, parts = (values[torch.as_tensor(indices)] for values in self.data[split])
        return clouds if generator is None else jitter(turn(clouds, generator), generator), categories, parts


@tasks.register("standin_points")
class StandinPoints(StandinClouds, Classification):
    """Clouds float32 (N, 3, 128) and their categories int64 (N,); turned and jittered in training."""

    sizes: Mapping[str, int | str] = {"num_classes": len(CATEGORIES), "points": POINTS}

    def batch(
        self, split: str, indices: Sequence[int], generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        clouds, categories, _ = self.take(split, indices, generator)
        return clouds, categories
