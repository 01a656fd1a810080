"""COCO's detection of 2017 (Lin et al., 2014, "Microsoft COCO: Common Objects in Context", arXiv:1405.0312):
118,287 photographs to train on and 5,000 to test on, `train2017` and `val2017`, with objects of 80 classes in
`annotations/instances_*.json`. Any set in this form can take its place."""

import os
import re
import warnings
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
import torch
from torchmetrics import MetricCollection

from trainers.tasks import DataError, identity_of, tasks
from trainers.tasks.average_precision import CocoAP
from trainers.tasks.detection import Objects, Photos
from trainers.tasks.reading import Broken

FOLDERS = {"train": "train2017", "test": "val2017"}


Number = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]  # which COCO's metric has as a float


class _Category(msgspec.Struct, gc=False):
    id: int
    name: str


class _Image(msgspec.Struct, gc=False):
    id: Number
    file_name: Annotated[str, msgspec.Meta(max_length=200)]


class _Annotation(msgspec.Struct, gc=False):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]  # x, y, width, height
    iscrowd: int = 0


class _Instances(msgspec.Struct):
    categories: list[_Category]
    images: list[_Image]
    annotations: list[_Annotation]


class Instances(NamedTuple):
    """What is in the photographs of a split.

    Attributes:
        names: of the files, as bytes; numbers: int64, theirs in COCO.
        first: int64, where in the other arrays the objects of each begin, and where the last's end.
        boxes: float64 (objects, 4), corners in pixels; labels: int64, -1 for a category that is unknown.
        crowd: bool.
        categories: the names of the classes, by the numbers that they have in the file.
    """

    names: np.ndarray
    numbers: np.ndarray
    first: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    categories: dict[int, str]


@tasks.register("coco17")
class Coco17(Photos):
    """Boxes and the names of files in memory, photographs are read when asked for.

    The training leaves crowds out, and photographs with nothing else or nothing at all.
    """

    sizes: Mapping[str, int | str] = {"num_classes": 80, "in_channels": 3, "image_size": 300}
    epochs = 120
    batch_size = 32
    licence = "Annotations CC BY 4.0; the photographs are flickr's, under its terms of use."
    published = "https://cocodataset.org/#download"

    def __init__(self, data: Path | None = None) -> None:
        if data is None:
            raise DataError(f"COCO comes with no package: get it at {self.published}, name its folder.")
        self.folder = data
        self.data: dict[str, Instances] = {}
        for split, name in FOLDERS.items():
            if split == "test" or self._file(split).exists():  # without the former, for evaluation only
                self.data[split] = read_instances(self._file(split), crowds=split == "test")
                _find(data / name, self.data[split].names, self.published)
        categories = self.data["test"].categories
        if any(instances.categories != categories for instances in self.data.values()):
            raise DataError(
                f"{self._file('train')} and {self._file('test')} should have the same categories."
            )
        self.sizes = {**type(self).sizes, "num_classes": len(categories)}

    @cached_property
    def identity(self) -> str:  # asks for the size of each file, so only where somebody wants it
        photos = (self.path(split, i) for split, count in self.splits.items() for i in range(count))
        files = {*(self._file(split) for split in self.data), *(path for path in photos if path.exists())}
        return identity_of(files, self.folder)

    @property
    def splits(self) -> Mapping[str, int]:
        return {split: len(instances.names) for split, instances in self.data.items()}

    def metrics(self) -> MetricCollection:
        return MetricCollection({"COCO": CocoAP(int(self.sizes["num_classes"]))})

    def path(self, split: str, index: int) -> Path:
        return self.folder / FOLDERS[split] / os.fsdecode(self.data[split].names[index].item())

    def number(self, split: str, index: int) -> int:
        return int(self.data[split].numbers[index])

    def objects(self, split: str, index: int) -> Objects:
        instances = self.data[split]
        own = slice(*instances.first[index : index + 2].tolist())
        labels = torch.from_numpy(instances.labels[own])
        if (labels < 0).any():
            raise Broken(f"{self._file(split)} has an object in it of a category that it does not list")
        return Objects(torch.from_numpy(instances.boxes[own]), labels, torch.from_numpy(instances.crowd[own]))

    def _file(self, split: str) -> Path:
        return self.folder / "annotations" / f"instances_{FOLDERS[split]}.json"


def read_instances(path: Path, *, crowds: bool) -> Instances:
    """Those of a file. Annotations of photographs that it does not list are left out with a warning.

    Args:
        crowds: whether groups of objects with one box are wanted, and photographs without any object.

    Raises:
        DataError: it is missing, or not as COCO's.
    """
    try:
        content = msgspec.json.decode(path.read_bytes(), type=_Instances)
    except FileNotFoundError as error:
        raise DataError(f"There is no {path}. COCO is published at {Coco17.published}.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except msgspec.ValidationError as error:
        where = re.search(r"`\$\.?(.*)`$", str(error))
        raise DataError(
            f"{path} should have categories, images and annotations as COCO's instances have them, but "
            f"{where[1] if where and where[1] else 'as a whole'} is not so."
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path} is no whole JSON file.") from error
    places = {image.id: place for place, image in enumerate(content.images)}
    classes = {number: label for label, number in enumerate(sorted({c.id for c in content.categories}))}
    if not places or len(places) < len(content.images) or len(classes) < max(1, len(content.categories)):
        raise DataError(f"{path} should have images and categories, no two of which have the same id.")
    for image in content.images:
        if not re.fullmatch(r"[^./\\\0][^/\\\0]*", image.file_name):
            raise DataError(
                f"{path} should name images such as 000000000139.jpg, and not {image.file_name[:40]!r}."
            )
    lost = [a.image_id for a in content.annotations if a.image_id not in places]
    if lost:
        warnings.warn(
            f"{path} has {len(lost)} annotations of images that it does not list, such as {lost[0]}; they "
            "are left out.",
            stacklevel=2,
        )
    chosen = [a for a in content.annotations if a.image_id in places and (crowds or not a.iscrowd)]
    place = np.array([places[a.image_id] for a in chosen], np.int64)
    order = np.argsort(place, kind="stable")
    boxes = np.array([a.bbox for a in chosen], np.float64).reshape(-1, 4)[order]
    boxes[:, 2:] += boxes[:, :2]
    counts = np.bincount(place, minlength=len(places))
    kept = np.ones(len(places), bool) if crowds else counts > 0
    if not kept.any():
        raise DataError(f"{path} has no object to train with.")
    return Instances(
        names=np.array([os.fsencode(image.file_name) for image in content.images])[kept],
        numbers=np.array([image.id for image in content.images], np.int64)[kept],
        first=np.concatenate([[0], np.cumsum(counts[kept])]),
        boxes=boxes,
        labels=np.array([classes.get(a.category_id, -1) for a in chosen], np.int64)[order],
        crowd=np.array([a.iscrowd == 1 for a in chosen], bool)[order],
        categories={category.id: category.name for category in content.categories},
    )


def _find(folder: Path, names: np.ndarray, published: str) -> None:
    """Raise DataError where none of the files are in the folder."""
    try:
        there = set(os.listdir(os.fsencode(folder)))
    except OSError as error:
        raise DataError(
            f"{folder} cannot be read: {error.strerror}. COCO is published at {published}."
        ) from error
    if not there.intersection(names.tolist()):
        raise DataError(f"There is no {folder / os.fsdecode(names[0].item())}, nor any other of its list.")
