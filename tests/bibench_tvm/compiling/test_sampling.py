"""What networks are verified on: all values of an integer input, and samples for several inputs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from bibench_tvm.compiling.sampling import index_limits, sample_inputs, what_random_inputs_miss
from bibench_tvm.importer import Imported, import_model


class Inputs(torch.nn.Module):
    """Token ids, a mask, bytes, truths and floats."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(50, 4)

    def forward(
        self, ids: torch.Tensor, mask: torch.Tensor, image: torch.Tensor, on: torch.Tensor, x: torch.Tensor
    ) -> torch.Tensor:
        words = self.table(ids) * mask.unsqueeze(-1)
        return words.mean((1, 2)) + image.float().mean(1) + torch.where(on, x, -x).mean(1)


@pytest.fixture(scope="module")
def several() -> Imported:
    ids, mask = (torch.zeros(2, 6, dtype=torch.long) for _ in range(2))
    example = (ids, mask, torch.zeros(2, 30, dtype=torch.uint8), torch.zeros(2, 3, dtype=torch.bool))
    return import_model(Inputs(), example_inputs=(*example, torch.zeros(2, 3)))


@pytest.fixture
def two_inputs(tmp_path: Path) -> Path:
    """ONNX: rows of a table, by ids, times a float."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("MatMul", ["rows", "x"], ["y"]),
    ]
    inputs = [
        helper.make_tensor_value_info("ids", TensorProto.INT64, (1, 6)),
        helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 5, 3)),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 6, 3))]
    table = numpy_helper.from_array(np.arange(200, dtype=np.float32).reshape(40, 5), "table")
    graph = helper.make_graph(nodes, "two", inputs, outputs, [table])
    path = tmp_path / "two.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_random_inputs_reach_the_ends(several: Imported, two_inputs: Path) -> None:
    assert index_limits(several) == {"ids": 50}
    assert index_limits(import_model(two_inputs)) == {"ids": 40}
    columns = list(zip(*sample_inputs(several, 8, None), strict=True))
    for column, spec, low, high in zip(
        columns, several.inputs, (0, 0, 0, 0, -9), (49, 1, 255, 1, 9), strict=True
    ):
        values = np.stack(column)
        assert str(values.dtype) == spec.dtype and values.shape == (8, *spec.shape)
        if spec.dtype == "float32":
            assert low < values.min() < -1 and 1 < values.max() < high
        else:
            assert (values.min(), values.max()) == (low, high), spec
    assert len(np.unique(np.stack(columns[2]))) > 150
    missed = " ".join(what_random_inputs_miss(several))
    assert "'mask' (int64) was tried with 0 and 1 alone" in missed and "'ids'" not in missed


def test_one_number(two_inputs: Path) -> None:
    """Both ends of an index that is one number a run are tried."""
    model = onnx.load(two_inputs)
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("ids", TensorProto.INT64, (1, 1)))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 1, 3)))
    onnx.save(model, two_inputs)
    runs = sample_inputs(import_model(two_inputs), 2, None)
    assert {int(run[0].item()) for run in runs} == {0, 39}


def test_samples_for_several_inputs(invoke: Callable, two_inputs: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    good = {
        "ids": generator.integers(0, 40, (3, 6)),
        "x": generator.standard_normal((3, 5, 3)).astype(np.float32),
    }
    cases = [
        (good, ""),
        ({"ids": good["ids"]}, "The samples lack x; the inputs of the network are ids, x."),
        ({**good, "z": good["x"]}, "The network has no input z, which is in the samples"),
        ({**good, "x": good["x"][:, :4]}, "The samples of 'x' have shape (3, 4, 3); 3 runs of the network"),
        ({**good, "ids": good["ids"][:2]}, "The samples of 'ids' have shape (2, 6); 3 runs of the network"),
        ({**good, "ids": good["x"]}, "The samples of 'ids' are float32, and the network takes int64."),
        ({**good, "ids": good["ids"] + 30}, "and the network takes int64 from 0 to 39."),
        ({**good, "x": good["x"] * np.nan}, "The samples of 'x' hold NaN or infinities."),
        (good["x"], "The network has 2 inputs, and the samples are one array; give one for each input"),
    ]
    path = tmp_path / "samples.npz"
    for samples, sentence in cases:
        with path.open("wb") as file:
            np.savez(file, **samples) if isinstance(samples, dict) else np.save(file, samples)
        line = ["--target", "host", "--verify", 3, "--samples", path, "--out", tmp_path / "out", "--json"]
        done = invoke("compile", two_inputs, *line)
        assert done.code == (2 if sentence else 0), done.stderr
        assert sentence in " ".join(done.stderr.split())
    line = ["--target", "host", "--verify", 3, "--samples", path, "--out", tmp_path / "out", "--json"]
    np.savez(path, **good)
    record = invoke("compile", two_inputs, *line, "--float-layers", "int8").json["verification"]
    assert record["passed"] is True and record["samples"] == 3
    path.write_bytes(path.read_bytes()[:-40])
    assert "is not a whole .np" in " ".join(invoke("compile", two_inputs, *line).stderr.split())
