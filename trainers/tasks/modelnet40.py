"""ModelNet40 (Wu et al., 2015, arXiv:1406.5670): 12,311 things of 40 classes, as points on their surface.
Read from the meshes, `<class>/<train|test>/*.off`, or from the points that came with PointNet,
`modelnet40_ply_hdf5_2048`."""

import re
import warnings
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from trainers.tasks import DataError, identity_of, tasks
from trainers.tasks.classes import Classification
from trainers.tasks.clouds import jitter, to_unit_sphere, turn
from trainers.tasks.reading import Broken, read_each, read_numbers

CLASSES = (
    "airplane", "bathtub", "bed", "bench", "bookshelf", "bottle", "bowl", "car", "chair", "cone", "cup",
    "curtain", "desk", "door", "dresser", "flower_pot", "glass_box", "guitar", "keyboard", "lamp",
    "laptop", "mantel", "monitor", "night_stand", "person", "piano", "plant", "radio", "range_hood",
    "sink", "sofa", "stairs", "stool", "table", "tent", "toilet", "tv_stand", "vase", "wardrobe",
    "xbox",
)  # fmt: skip
POINTS = 1024
MOST = 20_000  # clouds in a file of HDF5; of the published ones each has 2048


@tasks.register("modelnet40")
class ModelNet40(Classification):
    """Clouds float32 (N, 3, 1024) in the unit sphere; turned and jittered in training.

    Of a mesh the points are always the same, drawn by its name. They are kept once drawn, as are the first
    1024 of each cloud in the files of HDF5: 150 MB in all.
    """

    sizes: Mapping[str, int | str] = {"num_classes": len(CLASSES), "points": POINTS}
    example_inputs: Any = (torch.zeros(1, 3, POINTS),)
    epochs = 200
    batch_size = 64
    licence = "For research; the meshes belong to their authors (modelnet.cs.princeton.edu)."
    published = (
        "https://modelnet.cs.princeton.edu (ModelNet40.zip) or "
        "https://shapenet.cs.stanford.edu/media/modelnet40_ply_hdf5_2048.zip"
    )

    def __init__(self, data: Path | None = None) -> None:
        if data is None:
            raise DataError(f"ModelNet40 comes with no package: get it at {self.published}, name its folder.")
        self.points: dict[Path, np.ndarray] = {}
        self.files: dict[str, list[Path]] = {}
        self.clouds: dict[str, np.ndarray] = {}
        self.labels: dict[str, np.ndarray] = {}
        for folder in (data, data / "modelnet40_ply_hdf5_2048", data / "ModelNet40"):
            for find, open_split in ((_list_packed, self._open_packed), (_list_meshes, self._open_meshes)):
                files = {split: find(folder, split) for split in ("train", "test")}
                if not any(files.values()):
                    continue
                for split, paths in files.items():
                    if not paths:
                        raise DataError(
                            f"{folder} has no files for {split}, but for the other split. ModelNet40 is "
                            f"published at {self.published}."
                        )
                    open_split(split, paths)
                self.identity = identity_of([path for paths in files.values() for path in paths], folder)
                return
        raise DataError(
            f"{data} has neither files ply_data_train*.h5 nor meshes such as airplane/train/airplane_1.off."
            f" ModelNet40 is published at {self.published}."
        )

    def _open_packed(self, split: str, paths: list[Path]) -> None:
        clouds, labels = zip(*map(read_hdf5, paths), strict=True)
        self.clouds[split], self.labels[split] = np.concatenate(clouds), np.concatenate(labels)

    def _open_meshes(self, split: str, paths: list[Path]) -> None:
        self.files[split] = paths
        self.labels[split] = np.array([CLASSES.index(path.parent.parent.name) for path in paths], np.int64)

    @property
    def splits(self) -> Mapping[str, int]:
        return {split: len(labels) for split, labels in self.labels.items()}

    def batch(
        self, split: str, indices: Sequence[int], generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        places = list(range(len(indices)))
        if split in self.files:
            paths = [self.files[split][index] for index in indices]
            found, places = read_each(paths, lambda place: self._points_of(paths[place]))
        else:
            found = [to_unit_sphere(self.clouds[split][index]) for index in indices]
        clouds = torch.from_numpy(np.array(found, np.float32).reshape(len(found), POINTS, 3)).movedim(2, 1)
        if generator is not None:
            clouds = jitter(turn(clouds, generator), generator)
        return clouds, torch.from_numpy(self.labels[split][[indices[place] for place in places]])

    def _points_of(self, path: Path) -> np.ndarray:
        if path not in self.points:
            random = np.random.default_rng(zlib.crc32(path.name.encode()))
            points = to_unit_sphere(sample_surface(*read_off(path), POINTS, random))
            self.points[path] = points[:, [0, 2, 1]] * [1, 1, -1]  # the meshes have z upwards
        return self.points[path]


def _list_packed(folder: Path, split: str) -> list[Path]:
    return sorted(folder.glob(f"ply_data_{split}*.h5"))


def _list_meshes(folder: Path, split: str) -> list[Path]:
    found = [path for path in folder.glob(f"*/{split}/*.off") if not path.name.startswith(".")]
    for path in found:
        if path.parent.parent.name not in CLASSES:
            raise DataError(f"{path.parent.parent} is none of the 40 classes of ModelNet40.")
    return sorted(found)


def read_hdf5(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Points float32 (N, 1024, 3) and labels int64 (N,) of one file. Raises DataError."""
    wrong = f"{path} should be a HDF5 file with `data` (N, {POINTS} or more, 3) and `label` (N, 1)"
    try:
        with h5py.File(path, "r") as file:
            # Links to other files, virtual sets and external ones would read what nobody named.
            links = [file.get(name, getlink=True) for name in ("data", "label")]
            held = [file[name] for name in ("data", "label")] if _all(links, h5py.HardLink) else []
            if not held or not _all(held, h5py.Dataset) or any(d.is_virtual or d.external for d in held):
                raise DataError(f"{wrong}, but it lacks one of them.")
            data, label = held
            count = data.shape[0] if data.ndim == 3 else 0
            if (
                not 0 < count <= MOST
                or data.shape[1] < POINTS
                or data.shape[2] != 3
                or label.shape not in ((count, 1), (count,))
                or (data.dtype.kind, label.dtype.kind in "iu") != ("f", True)
            ):
                raise DataError(
                    f"{wrong}, but has {data.shape} of {data.dtype} and {label.shape} of {label.dtype}."
                )
            points, labels = data[:, :POINTS].astype(np.float32), label[:].reshape(-1).astype(np.int64)
    except DataError:
        raise
    except Exception as error:  # whatever a damaged file can lead to
        raise DataError(f"{wrong}, but it is damaged or cannot be read.") from error
    if not np.isfinite(points).all():
        raise DataError(f"{path} has coordinates that are no numbers.")
    if labels.min() < 0 or labels.max() >= len(CLASSES):
        raise DataError(
            f"{path} should have labels from 0 to 39, but they go from {labels.min()} to {labels.max()}."
        )
    return points, labels


def _all(values: Iterable[Any], kind: type) -> bool:
    return all(isinstance(value, kind) for value in values)


def read_off(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vertices float64 (V, 3) and triangles int64 (T, 3) of a mesh. Raises Broken, ValueError or OSError."""
    content = re.sub(rb"#[^\n]*", b"", path.read_bytes()).strip()
    if not content.startswith(b"OFF"):
        raise Broken("it does not begin with OFF")
    # Some have "OFF490 518 0" in one line.
    lines = [line for line in content[3:].split(b"\n") if line.strip()]
    try:
        vertex_count, face_count = (int(word) for word in lines[0].split()[:2])
    except (IndexError, ValueError) as error:
        raise Broken("it does not say how many vertices and faces it has") from error
    if vertex_count < 3 or face_count < 1 or len(lines) < 1 + vertex_count + face_count:
        raise Broken(f"it should have {vertex_count} vertices and {face_count} faces, and is shorter")
    vertices = read_numbers(lines[1 : 1 + vertex_count], np.float64)
    if vertices is None or vertices.shape[1] != 3:
        raise Broken("not every vertex has three coordinates")
    faces = lines[1 + vertex_count : 1 + vertex_count + face_count]
    numbers = read_numbers(faces, np.int64)
    if numbers is not None and numbers.shape[1] == 4 and (numbers[:, 0] == 3).all():
        triangles = numbers[:, 1:]
    else:
        triangles = np.array(list(_triangles(line.split() for line in faces)), np.int64)
    if not np.isfinite(vertices).all():
        raise Broken("it has coordinates that are no numbers")
    if not len(triangles) or triangles.min() < 0 or triangles.max() >= vertex_count:
        raise Broken(f"its faces are not of its {vertex_count} vertices")
    return vertices, triangles


def _triangles(faces: Iterable[list[bytes]]) -> Iterable[tuple[int, int, int]]:
    """Polygons as fans; what follows a face's corners in its line is its colour."""
    for face in faces:
        corners = [int(word) for word in face[1 : 1 + int(face[0])]]
        if len(corners) != int(face[0]):
            raise Broken("a face has fewer corners than it says")
        for second, third in zip(corners[1:-1], corners[2:], strict=True):
            yield corners[0], second, third


def sample_surface(
    vertices: np.ndarray, triangles: np.ndarray, count: int, random: np.random.Generator
) -> np.ndarray:
    """So many points (count, 3), evenly from the surface. Raises Broken if there is none."""
    first, second, third = (vertices[triangles[:, corner]] for corner in range(3))
    areas = np.linalg.norm(np.cross(second - first, third - first), axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shares = areas / areas.sum()
    if not np.isfinite(shares).all():
        raise Broken("its faces have no area")
    chosen = random.choice(len(triangles), count, p=shares)
    root, along = np.sqrt(random.uniform(size=(count, 1))), random.uniform(size=(count, 1))
    return (1 - root) * first[chosen] + root * (1 - along) * second[chosen] + root * along * third[chosen]
