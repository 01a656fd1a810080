"""CIFAR-10-C (Hendrycks and Dietterich, 2019, arXiv:1903.12261): the test images of CIFAR-10 under 19
corruptions of 5 severities, from the published arrays; without them, made of CIFAR-10's test images with the
same severities and other draws of what is random."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainers.tasks import DataError, identity_of, tasks
from trainers.tasks.cifar10 import MEAN, STD, Cifar10, find_batches, read_batches
from trainers.tasks.classes import Classification
from trainers.tasks.corrupted import SPLITS, corrupt_images, parse_split
from trainers.tasks.images import normalise
from trainers.tasks.severities import CIFAR10_C


@tasks.register("cifar10_c")
class Cifar10C(Classification):
    """For evaluation only: a split is a corruption and its severity, "fog/3".

    The published arrays, uint8 (5 N, 32, 32, 3) with one severity after the other, stay on disk. Where they
    are made, frost takes the .png and .jpg pictures of the folder `frost` in `data`, if there is one.
    """

    sizes: Mapping[str, int | str] = Cifar10.sizes
    example_inputs: Any = (torch.zeros(1, 3, 32, 32),)
    epochs = 0
    batch_size = 64
    licence = "CC-BY-4.0; of the images of CIFAR-10 none is stated."
    published = "https://zenodo.org/records/2535967 (CIFAR-10-C.tar)"

    def __init__(self, data: Path | None = None) -> None:
        if data is None:
            raise DataError(f"CIFAR-10-C comes with no package: get it at {self.published}, name its folder.")
        folder = data / "CIFAR-10-C" if (data / "CIFAR-10-C").is_dir() else data
        self.files = {name: folder / f"{name}.npy" for name in CIFAR10_C}
        self.images: Tensor | None = None  # uint8 (N, 3, 32, 32), to be corrupted here
        self.frost = sorted(path for path in (data / "frost").glob("*") if path.suffix in (".png", ".jpg"))
        if any(path.is_file() for path in self.files.values()):
            labels = _open_array(folder / "labels.npy", self.published)
            _check_labels(labels, folder / "labels.npy")
            self.count = len(labels) // 5
            self.labels = torch.from_numpy(labels[: self.count].astype(np.int64))
            for path in self.files.values():
                array = _open_array(path, self.published)
                if array.shape != (5 * self.count, 32, 32, 3) or array.dtype != np.uint8:
                    raise DataError(
                        f"{path} should hold bytes of shape ({5 * self.count}, 32, 32, 3), as labels.npy has "
                        f"it, not {array.dtype} of {array.shape}."
                    )
            self.identity = identity_of([*self.files.values(), folder / "labels.npy"], folder)
        else:
            try:
                paths = find_batches(data, "test")
            except DataError as error:
                raise DataError(
                    f"{folder} has none of the arrays of CIFAR-10-C, such as gaussian_noise.npy, which are "
                    f"published at {self.published}, nor CIFAR-10's test images to make them of. {error}"
                ) from error
            self.images, self.labels = read_batches(paths)
            self.count = len(self.labels)
            of_files = identity_of([*paths, *self.frost], data)
            self.identity = hashlib.sha256(f"{of_files} {CIFAR10_C}".encode()).hexdigest()

    @property
    def splits(self) -> Mapping[str, int]:
        return dict.fromkeys(SPLITS, self.count)

    def batch(
        self, split: str, indices: Sequence[int], generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """As of the protocol; nothing is augmented."""
        labels = self.labels[torch.as_tensor(indices)]
        if self.images is not None:
            images = corrupt_images(self.images[torch.as_tensor(indices)], split, indices, self.frost)
        else:
            name, severity = parse_split(split)
            array = _open_array(self.files[name], self.published)  # anew, as workers get a copy of the task
            rows = [(severity - 1) * self.count + index for index in indices]
            images = torch.from_numpy(array[rows]).movedim(3, 1)
        return normalise(images, MEAN, STD), labels


def _open_array(path: Path, published: str) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):  # but an archive of some
            raise ValueError
        return array
    except FileNotFoundError as error:
        raise DataError(f"There is no {path}. CIFAR-10-C is published at {published}.") from error
    except Exception as error:  # whatever a damaged file can lead to
        raise DataError(f"{path} should be an array that numpy saved whole, without objects.") from error


def _check_labels(labels: np.ndarray, path: Path) -> None:
    wrong = (
        labels.ndim != 1
        or labels.dtype.kind not in "iu"
        or not len(labels)
        or len(labels) % 5
        or labels.min() < 0
        or labels.max() > 9
    )
    if wrong or (labels.reshape(5, -1) != labels[: len(labels) // 5]).any():
        raise DataError(f"{path} should hold labels from 0 to 9, the same for each of the five severities.")
