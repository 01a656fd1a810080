"""A stand-in for ShapeNet's part segmentation, made here: the clouds of `parametric_clouds`, in parts."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from trainers.tasks import tasks
from trainers.tasks.parametric_clouds import CATEGORIES, PARTS
from trainers.tasks.part_iou import Segmentation
from trainers.tasks.standin_points import POINTS, StandinClouds


@tasks.register("standin_parts")
class StandinParts(StandinClouds, Segmentation):
    """Clouds float32 (N, 3, 128) and each point's part, int64 (N, 128); turned and jittered in training."""

    noise = 0.08
    parts = PARTS
    sizes: Mapping[str, int | str] = {"num_classes": len(CATEGORIES), "parts": sum(PARTS), "points": POINTS}

    def batch(
        self, split: str, indices: Sequence[int], generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        clouds, _, parts = self.take(split, indices, generator)
        return clouds, parts
