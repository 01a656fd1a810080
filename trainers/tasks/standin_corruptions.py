"""A stand-in for CIFAR-10-C: the first 1,000 test images of Fashion-MNIST under the same corruptions, with
the severities of CIFAR-10-C. No figure on it compares with one on that set."""

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainers.tasks import data_folder, tasks
from trainers.tasks.classes import Classification
from trainers.tasks.corrupted import SPLITS, corrupt_images
from trainers.tasks.fashion_mnist import FashionMnist, normalise
from trainers.tasks.severities import CIFAR10_C
from trainers.torch_file import CheckpointError, load_untrusted, save_atomically

COUNT = 1000
VERSION = 1  # of how the images are made: those of another are made anew


@tasks.register("standin_corruptions")
class StandinCorruptions(Classification):
    """For evaluation only: a split is a corruption and its severity, "fog/3"; images of (1, 32, 32).

    The first three severities of "saturate" leave an image without colours as it is.
    """

    sizes: Mapping[str, int | str] = FashionMnist.sizes
    example_inputs: Any = FashionMnist.example_inputs
    epochs = 0
    batch_size = 64
    licence = FashionMnist.licence
    published = f"Nowhere: a stand-in for CIFAR-10-C, made of {FashionMnist.published}"

    def __init__(self, data: Path | None = None) -> None:
        whole = FashionMnist(data)
        self.images, self.labels = (values[:COUNT].clone() for values in whole.data["test"])
        made_with = f"{VERSION} {whole.identity} {COUNT} {CIFAR10_C}"
        self.identity = hashlib.sha256(made_with.encode()).hexdigest()

    @property
    def splits(self) -> Mapping[str, int]:
        return dict.fromkeys(SPLITS, len(self.labels))

    def batch(
        self, split: str, indices: Sequence[int], generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """As of the protocol; nothing is augmented."""
        chosen = torch.as_tensor(indices)
        return normalise(self._corrupted(split)[chosen]), self.labels[chosen]

    def _corrupted(self, split: str) -> Tensor:
        """All images of a split, made once for all networks: 1 MB a file, some 2 s of a processor's time."""
        path = data_folder("standin_corruptions") / self.identity[:16] / f"{split.replace('/', '-')}.pt"
        with contextlib.suppress(CheckpointError, OSError):
            kept = load_untrusted(path)
            if isinstance(kept, Tensor) and (kept.shape, kept.dtype) == (self.images.shape, torch.uint8):
                return kept
        made = corrupt_images(self.images, split, range(len(self.images)))
        with contextlib.suppress(OSError):  # then the next one makes them again
            save_atomically(path, made)
        return made
