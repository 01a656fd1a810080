"""Several batches in a row are several runs where the first axis is a batch, and refused where it is not."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper, save
from torch import nn

from bibench_tvm import compile_model
from bibench_tvm.artifact.artifact import Artifact
from bibench_tvm.cli.errors import UsageError
from bibench_tvm.measuring.measure import check_images
from trainers import binarize


class Lambda(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *values):
        return self.function(*values)


class Graph(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 3)

    def forward(self, x, adjacent):
        return adjacent @ self.linear(x)


class Rows(nn.Module):
    """Three rows for each image."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(4, 6, 3, padding=1)

    def forward(self, x):
        return self.convolution(x).mean((2, 3)).reshape(-1, 2)


def attention(folder: Path) -> Path:
    weights = np.where(np.random.default_rng(0).random((24, 9)) < 0.5, -1, 1).astype(np.float32)
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "w"], ["q"]),
        node("Transpose", ["q"], ["k"], perm=[1, 0]),
        node("MatMul", ["q", "k"], ["s"]),
        node("Softmax", ["s"], ["p"], axis=-1),
        node("MatMul", ["p", "q"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [16, 24])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [16, 9])
    graph = helper.make_graph(nodes, "attention", [x], [y], [numpy_helper.from_array(weights, "w")])
    path = folder / "attention.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def twice(artifact: Artifact) -> list[np.ndarray]:
    return [np.ones((2 * s.shape[0], *s.shape[1:]), s.dtype) for s in artifact.record.inputs]


MIXING = {
    "mean": (Lambda(lambda x: x - x.mean(0)), [(4, 5)], "mixes the rows"),
    "sum": (Lambda(lambda x: x.sum(0)), [(4, 5)], "no row for each of the 4"),
    "square": (Lambda(lambda x: x.sum(0)), [(5, 5)], "mixes the rows"),
    "forward": (Lambda(lambda x: x.cumsum(0)), [(2, 6)], "mixes the rows"),
    "backward": (Lambda(lambda x: x.flip(0).cumsum(0).flip(0)), [(3, 6)], "mixes the rows"),
    "graph": (Graph(), [(4, 8), (4, 4)], "mixes the rows"),
    "extents": (Lambda(lambda x, y: x * y), [(4, 5), (1, 5)], "first extents of 4 and 1"),
    "nothing": (Lambda(lambda x: x * 0), [(4, 5)], "it was not seen whether it mixes the rows"),
}


@pytest.mark.parametrize("name", MIXING)
def test_a_first_axis_that_is_no_batch(name: str, tmp_path: Path) -> None:
    network, shapes, reason = MIXING[name]
    artifact = compile_model(network, tuple(torch.randn(shape) for shape in shapes), out=tmp_path)
    assert reason in artifact.record.one_batch_only
    first, shape = artifact.record.inputs[0], shapes[0]
    sentence = f"{first.name!r} has shape {(2 * shape[0], *shape[1:])}, and the network takes {shape} alone: "
    with pytest.raises(UsageError) as refused:
        artifact.run(*twice(artifact))
    assert sentence in str(refused.value) and str(refused.value).endswith(
        f"{artifact.record.one_batch_only}."
    )
    artifact.run(*(np.ones(shape, np.float32) for shape in shapes))


def test_attention_over_the_first_axis(tmp_path: Path) -> None:
    artifact = compile_model(attention(tmp_path), out=tmp_path / "out")
    with pytest.raises(
        UsageError, match=r"has shape \(32, 24\), and the network takes \(16, 24\) alone: its"
    ):
        artifact.run(np.ones((32, 24), np.float32))
    with pytest.raises(UsageError, match="tokens.npy cannot be cut into batches for attention: its output"):
        check_images(artifact.record, np.ones((40, 24), np.float32), "tokens.npy")


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_images(batch: int, small: nn.Module, tmp_path: Path) -> None:
    artifact = compile_model(small, torch.randn(batch, 4, 8, 8), out=tmp_path)
    assert artifact.record.one_batch_only == ""
    x = torch.randn(6, 4, 8, 8)
    with torch.no_grad():
        np.testing.assert_allclose(artifact.run(x.numpy()), small(x), atol=1e-4)


def test_several_rows_for_each_sample(tmp_path: Path) -> None:
    network = Rows().eval()
    artifact = compile_model(network, torch.randn(2, 4, 8, 8), out=tmp_path)
    x = torch.randn(6, 4, 8, 8)
    with torch.no_grad():
        np.testing.assert_allclose(artifact.run(x.numpy()), network(x), atol=1e-5)


@pytest.mark.parametrize("algorithm", ["bnn", "xnor", "dorefa", "bireal", "reactnet", "recu", "fda"])
def test_what_algorithms_compute_of_a_sample(algorithm: str, tmp_path: Path) -> None:
    layers = nn.Conv2d(4, 8, 3), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 5)
    network = binarize(nn.Sequential(*layers), algorithm=algorithm, keep=["0", "3"]).eval()
    artifact = compile_model(network, torch.randn(4, 4, 8, 8), out=tmp_path)
    assert artifact.record.one_batch_only == ""


def test_a_source_that_cannot_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bibench_tvm.importer.from_torch.reference import TorchReference

    def fail(*_, **__):
        raise RuntimeError("There is no memory.")

    monkeypatch.setattr(TorchReference, "__call__", fail)
    artifact = compile_model(Rows(), torch.randn(2, 4, 8, 8), out=tmp_path)
    assert artifact.record.one_batch_only.endswith("whether it mixes the rows: There is no memory")
    with pytest.raises(UsageError, match="There is no memory"):
        artifact.run(*twice(artifact))


def test_an_older_artifact_runs_as_it_did(tmp_path: Path) -> None:
    artifact = compile_model(MIXING["mean"][0], torch.randn(4, 5), out=tmp_path)
    before = msgspec.structs.replace(artifact.record, one_batch_only=msgspec.UNSET)
    older = Artifact(artifact.folder, before, artifact._library)
    assert older.run(*twice(older)).shape == (8, 5)
