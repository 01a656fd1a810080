"""What tasks of corrupted images share: they are there for evaluation only, one split a corruption and
severity."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainers.tasks.corruptions import corrupt
from trainers.tasks.severities import CIFAR10_C

SPLITS = [f"{name}/{severity}" for name in CIFAR10_C for severity in range(1, 6)]


def parse_split(split: str) -> tuple[str, int]:
    """ "fog/3" -> the corruption's name and its severity."""
    name, severity = split.split("/")
    return name, int(severity)


def corrupt_images(
    images: Tensor, split: str, indices: Sequence[int], frost_pictures: Sequence[Path] = ()
) -> Tensor:
    """The images uint8 (N, C, H, W) of these numbers as they are in a split, by CIFAR-10-C's severities.

    They have three channels or one, and 32 pixels or more a side.
    """
    name, severity = parse_split(split)
    made = [
        corrupt(image, name, severity, index, frost_pictures=frost_pictures)
        for image, index in zip(images.movedim(1, 3).numpy(), indices, strict=True)
    ]
    return torch.from_numpy(np.stack(made)).movedim(3, 1)
