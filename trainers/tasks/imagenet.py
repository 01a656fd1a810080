"""ImageNet (ILSVRC2012; Russakovsky et al., 2015, arXiv:1409.0575): photographs of 1000 classes, as folders
`train/<wnid>/*.JPEG` and `val/<wnid>/*.JPEG`. Any set of photographs in such folders can take its place."""

import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from trainers.tasks import DataError, identity_of, tasks
from trainers.tasks.classes import Classification
from trainers.tasks.images import normalise
from trainers.tasks.reading import Broken, read_each

EXTENT, RESIZED = 224, 256
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FOLDERS = {"train": "train", "test": "val"}
ENDINGS = (".jpeg", ".jpg", ".png")
TRIES = 10  # to find a crop that fits into the image
Resize = Callable[[Image.Image], Image.Image]


@tasks.register("imagenet")
class ImageNet(Classification):
    """The names of its files in memory; images are decoded when asked for: float32 (N, 3, 224, 224)."""

    sizes: Mapping[str, int | str] = {"num_classes": 1000, "in_channels": 3}
    example_inputs: Any = (torch.zeros(1, 3, EXTENT, EXTENT),)
    epochs = 90
    batch_size = 64
    licence = "For non-commercial research and education, by the terms of access of image-net.org."
    published = "https://www.image-net.org/download.php"

    def __init__(self, data: Path | None = None) -> None:
        if data is None:
            raise DataError(f"ImageNet comes with no package: get it at {self.published}, name its folder.")
        self.folder = data
        found = {split: _list_classes(data / name) for split, name in FOLDERS.items()}
        if found["test"] is None:
            raise DataError(
                f"There is no {data / 'val'}, whose folders, one a class, should hold images. ImageNet is "
                f"published at {self.published}."
            )
        self.classes = sorted(found["train"] or found["test"])
        if len(self.classes) < 2:
            raise DataError(f"{data} has images of one class, {self.classes[0]}, and should of two or more.")
        self.files: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # names as bytes, labels
        for split, folders in found.items():
            if folders is not None:
                if unknown := folders.keys() - set(self.classes):
                    raise DataError(
                        f"{data / 'val' / min(unknown)} has no class of its name in {data / 'train'}."
                    )
                numbers = {name: number for number, name in enumerate(self.classes)}
                names = np.array([os.fsencode(f"{c}/{f}") for c in sorted(folders) for f in folders[c]])
                labels = np.repeat(
                    [numbers[c] for c in sorted(folders)], [len(folders[c]) for c in sorted(folders)]
                )
                self.files[split] = names, labels.astype(np.int64)
        self.sizes = {**type(self).sizes, "num_classes": len(self.classes)}

    @cached_property
    def identity(self) -> str:  # asks for the size of each file, so only where somebody wants it
        return identity_of((self._path(s, i) for s in self.files for i in range(self.splits[s])), self.folder)

    @property
    def splits(self) -> Mapping[str, int]:
        return {split: len(labels) for split, (_, labels) in self.files.items()}

    def batch(
        self, split: str, indices: Sequence[int], generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        resizes: list[Resize] = [resize_and_crop] * len(indices)
        if generator is not None:  # the same numbers for an image, whether others are broken or not
            draws = torch.rand(len(indices), 4 * TRIES + 1, generator=generator).tolist()
            resizes = [partial(crop_at_random, draws=own) for own in draws]
        paths = [self._path(split, index) for index in indices]
        found, places = read_each(paths, lambda place: read_image(paths[place], resizes[place]))
        images = np.array(found, np.uint8).reshape(len(found), EXTENT, EXTENT, 3)
        labels = torch.from_numpy(self.files[split][1][[indices[place] for place in places]])
        return normalise(torch.from_numpy(images).movedim(3, 1), MEAN, STD), labels

    def _path(self, split: str, index: int) -> Path:
        return self.folder / FOLDERS[split] / os.fsdecode(self.files[split][0][index].item())


def _list_classes(folder: Path) -> dict[str, list[str]] | None:
    """Class -> the names of its images, in order; None where there is no such folder. Raises DataError."""
    if not folder.is_dir():
        return None
    try:
        classes = [entry for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")]
        found = {
            entry.name: sorted(
                name
                for name in os.listdir(entry.path)
                if name.lower().endswith(ENDINGS) and not name.startswith(".")
            )
            for entry in classes
        }
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}.") from error
    if not any(found.values()):
        raise DataError(f"{folder} should hold a folder for each class with .JPEG or .png files in it.")
    return found


def read_image(path: Path, resize: Resize) -> np.ndarray:
    """uint8 (H, W, 3), decoded and then resized. Raises Broken, or what Pillow raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path, formats=("JPEG", "PNG")) as image:
                return np.asarray(resize(image.convert("RGB")))
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise Broken(f"it would take more than {Image.MAX_IMAGE_PIXELS} pixels") from error
        except Image.UnidentifiedImageError as error:
            raise Broken("it is neither a JPEG nor a PNG image") from error


def resize_and_crop(image: Image.Image) -> Image.Image:
    """The middle 224x224 of what the image is with its shorter side at 256."""
    short, sides = min(image.size), []
    for side in image.size:
        resized = RESIZED * side // short
        first = round((resized - EXTENT) / 2)
        sides.append((first * side / resized, (first + EXTENT) * side / resized))
    box = (sides[0][0], sides[1][0], sides[0][1], sides[1][1])
    # At once, since the whole of a long and thin one would take gigabytes.
    return image.resize((EXTENT, EXTENT), Image.Resampling.BILINEAR, box=box)


def crop_at_random(image: Image.Image, draws: Sequence[float]) -> Image.Image:
    """8 % to all of the image, at an aspect of 3/4 to 4/3, made 224x224 and mirrored half of the time
    (Szegedy et al., 2015, arXiv:1409.4842).

    Args:
        draws: 41 numbers from 0 to 1.
    """
    width, height = image.size
    for draw in range(TRIES):
        area, aspect, across, down = draws[4 * draw : 4 * draw + 4]
        pixels = width * height * (0.08 + 0.92 * area)
        ratio = math.exp((2 * aspect - 1) * math.log(4 / 3))
        wide, high = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < wide <= width and 0 < high <= height:
            left, top = int(across * (width - wide + 1)), int(down * (height - high + 1))
            break
    else:  # the middle, at the nearest aspect that there may be
        wide, high = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
        left, top = (width - wide) // 2, (height - high) // 2
    box = (left, top, left + wide, top + high)
    made = image.resize((EXTENT, EXTENT), Image.Resampling.BILINEAR, box=box)
    return made.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if draws[-1] < 0.5 else made
