"""A network for images, as small as it can be, and a task for it."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy


class Brighter:
    """Which half of the image is brighter; `batch` sends this process a signal when it has been called as
    often as `stop_after` says."""

    sizes: Any = {"num_classes": 2, "in_channels": 1, "stem": "cifar"}
    example_inputs: Any = (torch.zeros(1, 1, 8, 8),)
    epochs = 4
    recipe = "paper"
    batch_size = 64
    metric = "accuracy"
    licence = published = "of this file"
    identity = "0"
    splits: Any = {"train": 64, "test": 64}

    def __init__(self, data: Path | None = None) -> None:
        generator = torch.Generator().manual_seed(0)
        self.labels = torch.arange(64) % 2
        self.images = torch.randn(64, 1, 8, 8, generator=generator) / 2
        self.images[self.labels == 0, :, :4] += 1
        self.images[self.labels == 1, :, 4:] += 1
        self.stop_after = -1
        self.number = signal.SIGTERM

    def batch(
        self, split: str, indices: Sequence[int], generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        self.stop_after -= split == "train"
        if self.stop_after == 0:
            os.kill(os.getpid(), self.number)
        images = self.images[list(indices)]
        if generator is not None:
            images = images + 0.1 * torch.randn(images.shape, generator=generator)
        return images, self.labels[list(indices)]

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets)

    def metrics(self) -> MetricCollection:
        return MetricCollection({"accuracy": MulticlassAccuracy(num_classes=2, average="micro")})


class Tiny(nn.Sequential):
    """(N, 1, 8, 8) -> (N, 2), with a dropout, so that a step is random."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 8, 2, 2),
            nn.Hardtanh(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.Flatten(),
            nn.Dropout(0.1),
            nn.Linear(128, 2),
        )
        self.example_inputs = (torch.zeros(1, 1, 8, 8),)


def tiny(num_classes: int = 2, in_channels: int = 1) -> nn.Module:
    return Tiny()
