"""ShapeNet's part segmentation (Yi et al., 2016, "A Scalable Active Framework for Region Annotation in 3D
Shape Collections", TOG): 16,881 shapes of 16 categories, whose points belong to 50 parts. Read from
`shapenetcore_partanno_segmentation_benchmark_v0_normal`."""

import json
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainers.tasks import DataError, identity_of, tasks
from trainers.tasks.clouds import jitter, to_unit_sphere
from trainers.tasks.part_iou import Segmentation
from trainers.tasks.reading import Broken, read_each, read_numbers

CATEGORIES = {  # name -> its parts, numbered on from category to category
    "Airplane": 4, "Bag": 2, "Cap": 2, "Car": 4, "Chair": 4, "Earphone": 3, "Guitar": 3, "Knife": 2,
    "Lamp": 4, "Laptop": 2, "Motorbike": 6, "Mug": 2, "Pistol": 3, "Rocket": 3, "Skateboard": 3, "Table": 3,
}  # fmt: skip
POINTS = 1024
NAME = "shapenetcore_partanno_segmentation_benchmark_v0_normal"
LISTS = {"train": "train", "validation": "val", "test": "test"}


@tasks.register("shapenet")
class ShapeNet(Segmentation):
    """Clouds float32 (N, 3, 1024) in the unit sphere and each point's part, int64 (N, 1024).

    A shape has some 2,600 points, of which 1024 are drawn: by its name, or in training by the generator,
    which jitters them too. All shapes face the same side, and go on to. Files are read when asked for.
    """

    parts = tuple(CATEGORIES.values())
    sizes: Mapping[str, int | str] = {"num_classes": len(CATEGORIES), "parts": sum(parts), "points": POINTS}
    example_inputs: Any = (torch.zeros(1, 3, POINTS),)
    epochs = 200
    batch_size = 64
    licence = "For non-commercial research and education, by the terms of use of shapenet.org."
    published = f"https://shapenet.cs.stanford.edu/media/{NAME}.zip"

    def __init__(self, data: Path | None = None) -> None:
        if data is None:
            raise DataError(f"ShapeNet comes with no package: get it at {self.published}, name its folder.")
        self.folder = data / NAME if (data / NAME).is_dir() else data
        self.first: dict[str, tuple[int, int]] = {}  # synset -> its first part, and one more than its last
        starts = dict(zip(CATEGORIES, np.cumsum([0, *self.parts]).tolist(), strict=False))
        for line in self._text("synsetoffset2category.txt").splitlines():
            words = line.split()
            if len(words) != 2 or words[0] not in CATEGORIES or not words[1].isdigit():
                raise DataError(
                    f"{self.folder}/synsetoffset2category.txt should have lines such as `Airplane 02691156`, "
                    f"with one of the 16 categories, and not {line[:60]!r}."
                )
            self.first[words[1]] = starts[words[0]], starts[words[0]] + CATEGORIES[words[0]]
        self.files = {split: self._list(f"shuffled_{name}_file_list.json") for split, name in LISTS.items()}
        everything = {self._path(name) for names in self.files.values() for name in names}
        missing = sorted(path for path in everything if not path.is_file())
        if len(missing) == len(everything):
            raise DataError(f"There is no {missing[0]}. ShapeNet's parts are published at {self.published}.")
        self.identity = identity_of(everything - set(missing), self.folder)

    @property
    def splits(self) -> Mapping[str, int]:
        return {split: len(names) for split, names in self.files.items()}

    def batch(
        self, split: str, indices: Sequence[int], generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        paths = [self._path(self.files[split][index]) for index in indices]
        seeds = [zlib.crc32(path.name.encode()) for path in paths]
        if generator is not None:
            seeds = torch.randint(2**62, (len(indices),), generator=generator).tolist()
        found, _ = read_each(paths, lambda place: self._read(paths[place], seeds[place]))
        points = np.array([cloud for cloud, _ in found], np.float32).reshape(len(found), POINTS, 3)
        labels = np.array([parts for _, parts in found], np.int64).reshape(len(found), POINTS)
        clouds, parts = torch.from_numpy(points).movedim(2, 1), torch.from_numpy(labels)
        return clouds if generator is None else jitter(clouds, generator), parts

    def _read(self, path: Path, seed: int) -> tuple[np.ndarray, np.ndarray]:
        cloud, parts = read_shape(path, *self.first[path.parent.name])
        random = np.random.default_rng(seed)
        chosen = random.choice(len(cloud), POINTS, replace=len(cloud) < POINTS)
        return to_unit_sphere(cloud)[chosen], parts[chosen]

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.txt"

    def _text(self, name: str) -> str:
        path = self.folder / name
        try:
            return path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise DataError(
                f"There is no {path}. ShapeNet's parts are published at {self.published}."
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path} should be a text in UTF-8, and cannot be read as one.") from error

    def _list(self, name: str) -> list[str]:
        """`<synset>/<id>` of each shape. No other path can be written in a list."""
        path = self.folder / "train_test_split" / name
        try:
            found = [
                re.fullmatch(r"shape_data/(\d+)/([\w-][\w.-]*)", entry)
                for entry in json.loads(self._text(f"train_test_split/{name}"))
            ]
        except (json.JSONDecodeError, TypeError, RecursionError) as error:
            raise DataError(f"{path} should be a JSON list of names of shapes.") from error
        if not found or any(match is None or match[1] not in self.first for match in found):
            raise DataError(
                f"{path} should list shapes such as `shape_data/02691156/1a04e3eab45ca15dd86060f189eb133`, "
                "with the number of a category of synsetoffset2category.txt."
            )
        return [f"{match[1]}/{match[2]}" for match in found if match]


def read_shape(path: Path, first: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Points float64 (P, 3) and their parts int64 (P,), from `first` to less than `end`, of lines with x, y,
    z, the normal and the part. Raises Broken, ValueError or OSError."""
    values = read_numbers([line for line in path.read_bytes().split(b"\n") if line.strip()], np.float64)
    if values is None or values.shape[1] != 7:
        raise Broken("not every line has seven numbers, coordinates, normal and part")
    points, parts = values[:, :3], values[:, 6]
    if not np.isfinite(points).all():
        raise Broken("it has coordinates that are no numbers")
    if not np.isin(parts, range(first, end)).all():
        raise Broken(f"its parts should be from {first} to {end - 1}, which its category has")
    return points, parts.astype(np.int64)
