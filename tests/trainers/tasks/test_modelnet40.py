"""The loader on tiny sets in both formats, and on damaged files of each."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from trainers.models import create_model
from trainers.tasks import DataError, tasks
from trainers.tasks.modelnet40 import CLASSES, ModelNet40, read_off, sample_surface

# A tetrahedron of corners 0, x, y, z, twice as long along z.
TETRAHEDRON = """OFF
4 4 0
0 0 0
1 0 0
0 1 0
0 0 2
3 0 1 2
3 0 1 3
3 0 2 3
3 1 2 3
"""


@pytest.fixture
def meshes(tmp_path: Path) -> Path:
    for name in ("airplane", "night_stand"):
        for split, count in (("train", 2), ("test", 1)):
            folder = tmp_path / "ModelNet40" / name / split
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"{name}_{number:04}.off").write_text(TETRAHEDRON)
            (folder / "._hidden.off").write_bytes(b"\xff")
    (tmp_path / "ModelNet40" / "README.txt").write_text("")
    return tmp_path


def write_hdf5(path: Path, data: np.ndarray, label: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=data, compression="gzip")
        file.create_dataset("label", data=label)
        file.create_dataset("normal", data=np.zeros_like(data))


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    random, folder = np.random.default_rng(0), tmp_path / "modelnet40_ply_hdf5_2048"
    folder.mkdir()
    for name, count in (("train0", 3), ("train1", 2), ("test0", 1)):
        labels = np.arange(count, dtype=np.uint8)[:, None] + 37
        write_hdf5(
            folder / f"ply_data_{name}.h5", random.normal(size=(count, 2048, 3)).astype(np.float32), labels
        )
    return tmp_path


def in_unit_sphere(clouds: torch.Tensor) -> bool:
    return bool((clouds.norm(dim=1).amax(1) - 1).abs().max() < 1e-5 and clouds.mean(2).abs().max() < 1e-5)


def test_meshes(meshes: Path) -> None:
    task = tasks["modelnet40"](meshes)
    assert task.splits == {"train": 4, "test": 2}
    clouds, labels = task.batch("train", [3, 0, 1])
    assert (clouds.shape, clouds.dtype, in_unit_sphere(clouds)) == ((3, 3, 1024), torch.float32, True)
    assert labels.tolist() == [CLASSES.index("night_stand"), 0, 0] and len(CLASSES) == 40
    assert not torch.equal(clouds[1], clouds[2])
    assert torch.equal(clouds, ModelNet40(meshes / "ModelNet40").batch("train", [3, 0, 1])[0])
    extents = (clouds.amax(2) - clouds.amin(2)).mean(0)
    assert extents[1] > 1.5 * extents[0]  # what is z in the file is up
    task.loss(create_model("pointnet_vanilla@small", **task.sizes)(clouds), labels).backward()


def test_packed_points(packed: Path) -> None:
    task = ModelNet40(packed)
    assert task.splits == {"train": 5, "test": 1}
    clouds, labels = task.batch("train", [3, 2])
    assert (clouds.shape, clouds.dtype, in_unit_sphere(clouds)) == ((2, 3, 1024), torch.float32, True)
    assert labels.tolist() == [37, 39]
    with h5py.File(packed / "modelnet40_ply_hdf5_2048" / "ply_data_train1.h5") as file:
        points = file["data"][0, :1024]
    points -= points.mean(0)
    expected = points / np.linalg.norm(points, axis=1).max()
    np.testing.assert_allclose(clouds[0].T.numpy(), expected, atol=1e-6)


def test_the_generator_turns(packed: Path) -> None:
    task = ModelNet40(packed)
    plain = task.batch("train", range(5))[0]
    first, again = (task.batch("train", range(5), torch.Generator().manual_seed(1))[0] for _ in range(2))
    assert torch.equal(first, again)
    assert (first - plain)[:, 1].abs().max() <= 0.0501 < 0.3 < (first - plain).abs().max()


def test_headers_of_meshes(tmp_path: Path) -> None:
    expected = [array.tolist() for array in read_off(write(tmp_path, TETRAHEDRON))]
    for text in (
        TETRAHEDRON.replace("OFF\n4", "OFF4"),
        TETRAHEDRON.replace("OFF\n", "OFF\r\n# made by hand\n\n"),
        TETRAHEDRON.replace("3 1 2 3\n", "3 1 2 3 255 0 0"),
    ):
        assert [array.tolist() for array in read_off(write(tmp_path, text))] == expected
    square = read_off(write(tmp_path, "OFF\n4 1 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3\n"))
    assert square[1].tolist() == [[0, 1, 2], [0, 2, 3]]


def write(folder: Path, text: str) -> Path:
    (folder / "mesh.off").write_text(text)
    return folder / "mesh.off"


def test_points_are_even_on_the_surface() -> None:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 5], [0, 0, 5]], float)
    triangles = np.array([[0, 1, 2], [0, 2, 3], [0, 4, 5]])  # a square and one of no area
    points = sample_surface(vertices, triangles, 40000, np.random.default_rng(0))
    assert (points[:, 2] == 0).all()
    counts = np.histogram2d(points[:, 0], points[:, 1], 4, [[0, 1], [0, 1]])[0]
    assert abs(counts / 2500 - 1).max() < 0.08


DAMAGED_MESHES = {
    "no header": (b"PLY\n" + TETRAHEDRON[4:].encode(), "it does not begin with OFF"),
    "empty": (b"", "it does not begin with OFF"),
    "bytes": (b"OFF\xff\xfe\x00", "it does not say how many vertices"),
    "truncated": (TETRAHEDRON[:30].encode(), "it should have 4 vertices and 4 faces, and is shorter"),
    "a billion": (b"OFF\n1000000000 1 0\n0 0 0\n", "it should have 1000000000 vertices"),
    "negative": (b"OFF\n-4 -4 0\n0 0 0\n", "it should have -4 vertices"),
    "nan": (TETRAHEDRON.replace("0 0 2", "0 0 nan").encode(), "it has coordinates that are no numbers"),
    "words": (TETRAHEDRON.replace("0 0 2", "0 0 two").encode(), "not every vertex has three"),
    "two coordinates": (TETRAHEDRON.replace("0 0 2", "0 0").encode(), "not every vertex has three"),
    "corner 9": (TETRAHEDRON.replace("3 1 2 3", "3 1 2 9").encode(), "its faces are not of its 4 vertices"),
    "few corners": (TETRAHEDRON.replace("3 1 2 3", "4 1 2 3").encode(), "a face has fewer corners"),
    "flat": (TETRAHEDRON.replace("0 0 2\n3", "0 0 0\n3").replace("0 1 0", "2 0 0").encode(), "have no area"),
}


@pytest.mark.parametrize("name", DAMAGED_MESHES)
def test_damaged_meshes_are_left_out(meshes: Path, name: str) -> None:
    content, reason = DAMAGED_MESHES[name]
    path = meshes / "ModelNet40" / "airplane" / "train" / "airplane_0001.off"
    path.write_bytes(content)
    task = ModelNet40(meshes)
    with pytest.warns(UserWarning, match=f"{path} is left out, because .*{reason}"):
        clouds, labels = task.batch("train", [1, 2])
    assert len(clouds) == 1 and labels.tolist() == [CLASSES.index("night_stand")]
    with pytest.warns(UserWarning, match=reason):
        clouds, labels = task.batch("train", [1, 1], torch.Generator())
    assert (clouds.shape, labels.shape) == ((0, 3, 1024), (0,))


def test_damaged_hdf5_files(packed: Path) -> None:
    path = packed / "modelnet40_ply_hdf5_2048" / "ply_data_train1.h5"
    whole, good, label = path.read_bytes(), np.zeros((2, 2048, 3), np.float32), np.zeros((2, 1), np.uint8)
    broken: list[tuple[np.ndarray, np.ndarray, str]] = [
        (good[:, :1000], label, r"has \(2, 1000, 3\) of float32"),
        (good[:, :, :2], label, r"has \(2, 2048, 2\)"),
        (good[0], label, r"has \(2048, 3\)"),
        (good[:0], label[:0], r"has \(0, 2048, 3\)"),
        (good.astype(int), label, "of int64"),
        (good, label[:1], r"\(1, 1\) of uint8"),
        (good, label + 0.5, r"\(2, 1\) of float64"),
        (good, label + 40, "labels from 0 to 39, but they go from 40 to 40"),
        (good * np.nan, label, "coordinates that are no numbers"),
    ]
    for data, labels, sentence in broken:
        write_hdf5(path, data, labels)
        with pytest.raises(DataError, match=f"{path} .*{sentence}"):
            ModelNet40(packed)
    for content in (b"", b"no HDF5", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"{path} should be a HDF5 file .*, but it is damaged"):
            ModelNet40(packed)


def test_hdf5_files_that_point_elsewhere(packed: Path) -> None:
    path = packed / "modelnet40_ply_hdf5_2048" / "ply_data_train1.h5"
    other = path.with_name("ply_data_train0.h5")
    for kind in ("external link", "virtual", "missing"):
        with h5py.File(path, "w") as file:
            file["label"] = np.zeros((3, 1), np.uint8)
            if kind == "external link":
                file["data"] = h5py.ExternalLink(other.name, "/data")
            elif kind == "virtual":
                layout = h5py.VirtualLayout((3, 2048, 3), np.float32)
                layout[:] = h5py.VirtualSource(other, "data", (3, 2048, 3))
                file.create_virtual_dataset("data", layout)
        with pytest.raises(DataError, match="but it lacks one of them"):
            ModelNet40(packed)


def test_what_is_not_the_set(tmp_path: Path, meshes: Path, packed: Path) -> None:
    with pytest.raises(DataError, match="get it at https"):
        ModelNet40()
    with pytest.raises(DataError, match="has neither .* published at https"):
        ModelNet40(tmp_path / "nowhere")
    (packed / "modelnet40_ply_hdf5_2048" / "ply_data_test0.h5").unlink()
    with pytest.raises(DataError, match="hdf5_2048 has no files for test, .* published at https"):
        ModelNet40(packed)
    (meshes / "ModelNet40" / "airplane").rename(meshes / "ModelNet40" / "aircraft")
    with pytest.raises(DataError, match="aircraft is none of the 40 classes"):
        ModelNet40(meshes / "ModelNet40")
