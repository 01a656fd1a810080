"""ONNX files: what torch.onnx.export writes, dynamic shapes, layer names, constants, and every bad file."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from tvm import relax

from bibench_tvm.importer import ImportFailed, import_model
from bibench_tvm.importer.shapes import parse_input_shape

ROOT = Path(__file__).parents[4]


class Sign(nn.Module):
    def forward(self, x):
        return torch.where(x >= 0, 1.0, -1.0)


class BinaryConv(nn.Conv2d):
    def forward(self, x):
        scale = self.weight.abs().mean((1, 2, 3), keepdim=True)
        weight = torch.where(self.weight >= 0, 1.0, -1.0) * scale
        return nn.functional.conv2d(
            x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )


class Net(nn.Module):
    """A residual binary network that flattens by the sizes of its input."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 20, 3, padding=1)
        self.norm = nn.BatchNorm2d(20)
        self.sign = Sign()
        self.binary = BinaryConv(20, 20, 3, padding=1, groups=2, bias=False)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.head = nn.Linear(80, 10)

    def forward(self, x):
        x = self.norm(self.stem(x))
        x = self.binary(self.sign(x)) + x
        x = self.pool(nn.functional.hardtanh(x))
        return self.head(x.view(x.size(0), -1))


def calls(imported, name):
    return [
        binding.value
        for block in imported.module["main"].body.blocks
        for binding in block.bindings
        if isinstance(binding.value, relax.Call) and getattr(binding.value.op, "name", "") == name
    ]


def graph_file(path, nodes, inputs, weights=(), outputs=("y",), opset=17, **model_options):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in dict(weights).items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8, **model_options
    )
    for value in model.graph.output:
        value.type.tensor_type.shape.SetInParent()
    inferred = onnx.shape_inference.infer_shapes(model)
    onnx.save(inferred, path)
    return path


@pytest.fixture
def conv_file(tmp_path):
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="first")
    weights = {"w": np.ones((4, 3, 3, 3), np.float32)}
    return graph_file(tmp_path / "m.onnx", [node], {"x": ("batch", 3, 8, 8)}, weights)


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize("dynamic", [True, False])
def test_torch_export(dynamo, dynamic, tmp_path, assert_same):
    torch.manual_seed(0)
    model = Net().eval()
    path = tmp_path / "net.onnx"
    x = torch.randn(4, 3, 12, 10)
    options = {"input_names": ["image"], "dynamo": dynamo}
    if dynamic and dynamo:
        options["dynamic_shapes"] = ({0: torch.export.Dim("n")},)
    elif dynamic:
        options["dynamic_axes"] = {"image": {0: "n"}}
    torch.onnx.export(model, (x,), str(path), **options)
    if dynamic:
        alone = import_model(path)
        assert alone.inputs[0].shape == (1, 3, 12, 10)
        assert "--input-shape image:Nx3x12x10" in alone.notes[0]
    shapes = {"image": (4, 3, 12, 10)} if dynamic else None
    imported = assert_same(import_model(path, input_shapes=shapes), x.numpy())
    np.testing.assert_allclose(
        imported.reference([x.numpy()]).outputs[0], model(x).detach(), rtol=1e-4, atol=1e-5
    )
    assert len(imported.layer_names) == 3
    weight = calls(imported, "relax.nn.conv2d")[1].args[1].value.numpy()
    for channel in weight:
        assert len(np.unique(np.abs(channel))) == 1
    assert not calls(imported, "relax.call_tir")


def test_layers_are_named_once_and_record_their_inputs(tmp_path, assert_same):
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Conv", ["r", "w"], ["a"], name="same"),
        helper.make_node("Conv", ["a", "w"], ["b"], name="same"),
        helper.make_node("Conv", ["a", "w"], ["c"]),
        helper.make_node("Transpose", ["b"], ["t"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["t", "c"], ["m"], name="product"),
        helper.make_node("Add", ["m", "a"], ["y"]),
    ]
    weights = {"w": np.random.default_rng(0).standard_normal((3, 3, 1, 1)).astype(np.float32)}
    path = graph_file(tmp_path / "m.onnx", nodes, {"x": (1, 3, 8, 8)}, weights)
    x = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(np.float32)
    imported = assert_same(import_model(path), x)
    assert list(imported.layer_names.values()) == ["same", "same#2", "c", "product"]
    # a result used twice is computed once
    assert len(calls(imported, "relax.nn.conv2d")) == 3
    recorded = imported.reference([x]).layer_inputs
    np.testing.assert_array_equal(recorded["same"][0], np.maximum(x, 0))
    np.testing.assert_array_equal(recorded["same#2"][0], recorded["c"][0])
    assert len(recorded["product"]) == 2


def test_weights_computed_from_initializers_are_constants(tmp_path, assert_same):
    nodes = [
        helper.make_node("Sign", ["w"], ["s"]),
        helper.make_node("Mul", ["s", "alpha"], ["binary"]),
        helper.make_node("Sign", ["x"], ["bits"], name="activation"),
        helper.make_node("Conv", ["bits", "binary"], ["y"], name="conv", dilations=[2, 2], pads=[0, 1, 2, 3]),
    ]
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.standard_normal((20, 96, 3, 3)).astype(np.float32),
        "alpha": rng.uniform(0.1, 1, (20, 1, 1, 1)).astype(np.float32),
    }
    path = graph_file(tmp_path / "m.onnx", nodes, {"x": (4, 96, 9, 9)}, weights)
    imported = import_model(path)
    weight = calls(imported, "relax.nn.conv2d")[0].args[1].value.numpy()
    np.testing.assert_array_equal(weight, np.sign(weights["w"]) * weights["alpha"])
    assert len(calls(imported, "relax.sign")) == 1
    assert_same(imported, rng.standard_normal((4, 96, 9, 9)).astype(np.float32))


def test_hardtanh_and_padding_stay_visible_to_passes(tmp_path):
    nodes = [
        helper.make_node("Clip", ["x", "low", "high"], ["c"]),
        helper.make_node("Pad", ["c", "pads"], ["y"]),
    ]
    weights = {
        "low": np.float32(-1), "high": np.float32(1), "pads": np.array([0, 0, 1, 0, 0, 0, 2, 0]),
    }  # fmt: skip
    weights = {name: np.asarray(value) for name, value in weights.items()}
    imported = import_model(graph_file(tmp_path / "m.onnx", nodes, {"x": (1, 3, 8, 8)}, weights))
    assert len(calls(imported, "relax.clip")) == 1
    assert len(calls(imported, "relax.nn.pad")) == 1
    assert [g.name_hint for g in imported.module.get_global_vars()] == ["main"]


def test_reference_without_onnxruntime(conv_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    x = np.ones((1, 3, 8, 8), np.float32)
    run = import_model(conv_file, input_shapes={None: (1, 3, 8, 8)}).reference([x])
    assert run.outputs[0].shape == (1, 4, 6, 6) and run.outputs[0].max() == 27
    np.testing.assert_array_equal(run.layer_inputs["first"][0], x)


def test_input_shapes(conv_file):
    assert import_model(conv_file, input_shapes={"x": (2, 3, 8, 8)}).inputs[0].shape == (2, 3, 8, 8)
    assert import_model(conv_file, input_shapes={None: (2, 3, 8, 8)}).inputs[0].shape == (2, 3, 8, 8)
    for shapes, words in [
        ({"z": (1, 3, 8, 8)}, r"no input 'z'; its input is x\."),
        ({None: (1, 3, 8, 8), "x": (1, 3, 8, 8)}, r"two shapes for the input 'x' of .*; give one\."),
        ({"x": (1, 3, 8)}, r"cannot be 1x3x8"),
        ({"x": (1, 3, 9, 8)}, r"is \?x3x8x8, so it cannot be 1x3x9x8"),
    ]:
        with pytest.raises(ImportFailed, match=words):
            import_model(conv_file, input_shapes=shapes)


def test_the_first_size_left_open_is_a_batch_of_one(conv_file, tmp_path):
    imported = import_model(conv_file)
    assert imported.inputs[0].shape == (1, 3, 8, 8)
    [note] = imported.notes
    assert "--input-shape x:Nx3x8x8" in note
    assert not import_model(conv_file, input_shapes={None: (1, 3, 8, 8)}).notes
    # Another input of the same batch is of the size that was given; another size that is left open is not 1.
    sizes = {"x": ("n", 3), "z": ("n", 3)}
    path = graph_file(tmp_path / "two.onnx", [helper.make_node("Add", ["x", "z"], ["y"])], sizes)
    assert import_model(path, input_shapes={"x": (4, 3)}).inputs[1].shape == (4, 3)
    path = graph_file(tmp_path / "open.onnx", [helper.make_node("Relu", ["x"], ["y"])], {"x": ("n", "m")})
    with pytest.raises(ImportFailed, match=r"dynamic shape nxm.*--input-shape x:1x1"):
        import_model(path)


def test_parse_input_shape():
    assert parse_input_shape("1x3x32x32") == (None, (1, 3, 32, 32))
    assert parse_input_shape("1, 3,32 ,32") == (None, (1, 3, 32, 32))
    assert parse_input_shape("data:1x3") == ("data", (1, 3))
    assert parse_input_shape("data:0:1,3") == ("data:0", (1, 3))
    assert parse_input_shape("[7]") == (None, (7,))
    for text in ["", "x", "1x0", "1x-3", "data:", "1x3.5", "ax1"]:
        with pytest.raises(ImportFailed, match="not an input shape"):
            parse_input_shape(text)


def test_initializers_listed_as_inputs(tmp_path):
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    path = graph_file(
        tmp_path / "m.onnx",
        [node],
        {"x": (1, 3, 8, 8), "w": (4, 3, 3, 3)},
        {"w": np.ones((4, 3, 3, 3), np.float32)},
    )
    assert [spec.name for spec in import_model(path).inputs] == ["x"]


def test_two_inputs_two_outputs(tmp_path, assert_same):
    nodes = [helper.make_node("MatMul", ["a.1", "b:0"], ["y"]), helper.make_node("Relu", ["y"], ["z"])]
    path = graph_file(tmp_path / "m.onnx", nodes, {"a.1": (2, 3), "b:0": (3, 4)}, outputs=("y", "z"))
    imported = import_model(path)
    assert [spec.name for spec in imported.inputs] == ["a.1", "b:0"]
    assert [spec.name for spec in imported.outputs] == ["y", "z"]
    rng = np.random.default_rng(0)
    values = [rng.standard_normal(s).astype(np.float32) for s in [(2, 3), (3, 4)]]
    assert_same(imported, *values)
    with pytest.raises(ImportFailed, match="needs the name"):
        import_model(path, input_shapes={None: (2, 3)})
    with pytest.raises(ValueError, match="takes 2 inputs"):
        imported.reference(values[:1])
    with pytest.raises(ValueError, match="float64 2x3"):
        imported.reference([values[0].astype(np.float64), values[1]])


def test_bad_files(conv_file, tmp_path):
    content = conv_file.read_bytes()

    def refused(words, data=None, name="bad.onnx"):
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(ImportFailed, match=words) as caught:
            import_model(path, input_shapes={None: (1, 3, 8, 8)})
        assert str(path) in str(caught.value) and str(caught.value).endswith(".")

    refused("cannot be read: No such file", name="missing.onnx")
    refused("cannot be read: Is a directory", name=".")
    refused("is empty", b"")
    refused("text file", b"this is not a model\n")
    refused("text file", "Hello Wörld äöü ".encode() * 9)
    refused("not an ONNX file, or it is truncated|no ONNX graph|not a valid", content[: len(content) // 2])
    refused("not an ONNX file, or it is truncated|no ONNX graph|not a valid", content[:12])
    refused("neither an ONNX file", bytes(range(128, 256)), name="bad.bin")
    refused("not an ONNX file", bytes(range(128, 256)))


def test_refused_models(conv_file, tmp_path):
    def refused(words, change):
        model = onnx.load(conv_file)
        change(model)
        path = tmp_path / "bad.onnx"
        path.write_bytes(model.SerializeToString())
        with pytest.raises(ImportFailed, match=words) as caught:
            import_model(path, input_shapes={None: (1, 3, 8, 8)})
        assert "bad.onnx" in str(caught.value) and str(caught.value).endswith(".")

    def with_weights(array):
        return lambda m: m.graph.initializer[0].CopyFrom(numpy_helper.from_array(array, "w"))

    bad = np.ones((4, 3, 3, 3), np.float32)
    bad[1, 2] = np.nan
    refused("initializer 'w'.*9 values that are NaN", with_weights(bad))
    refused("initializer 'w'.*infinite", with_weights(np.full((4, 3, 3, 3), np.inf, np.float32)))
    refused("operand 'w' of Conv .node 'first'", with_weights(np.full((4, 3, 3, 3), -np.inf, np.float32)))
    refused("'first'", with_weights(np.ones((4, 5, 3, 3), np.float32)))
    refused("opset 999", lambda m: setattr(m.opset_import[0], "version", 999))
    refused("not a valid ONNX model.*nothing", lambda m: m.graph.node[0].input.__setitem__(0, "nothing"))
    refused("not a valid ONNX model", lambda m: setattr(m.graph.node[0], "op_type", "Convolve"))

    def custom(m):
        m.opset_import.append(helper.make_opsetid("com.me", 1))
        m.graph.node[0].op_type, m.graph.node[0].domain = "Bits", "com.me"

    refused("operator com.me.Bits .node 'first'", custom)

    def unsupported(m):
        m.graph.node[0].CopyFrom(helper.make_node("DFT", ["x"], ["y"], name="spectrum"))

    refused("operator DFT .node 'spectrum'", unsupported)


def test_an_output_of_unknown_size(tmp_path):
    path = graph_file(tmp_path / "m.onnx", [helper.make_node("NonZero", ["x"], ["y"])], {"x": (2, 3)})
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    onnx.save(model, path)
    with pytest.raises(ImportFailed, match="needs static shapes"):
        import_model(path)


def test_missing_external_data(tmp_path):
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="first")
    weights = {"w": np.ones((4, 3, 3, 3), np.float32)}
    path = graph_file(tmp_path / "m.onnx", [node], {"x": (1, 3, 8, 8)}, weights)
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert import_model(path).layer_names
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ImportFailed, match=r"weights of .*m\.onnx are in other files.*weights\.bin"):
        import_model(path)


def test_pytorch_is_not_needed_for_onnx(conv_file):
    # tvm_ffi imports PyTorch by itself where it is installed, so it is made impossible to import.
    code = (
        "import sys; sys.modules['torch'] = None; from bibench_tvm.importer import import_model; "
        f"import_model({str(conv_file)!r}, input_shapes={{None: (1, 3, 8, 8)}})"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def declared_file(path, x, y, nodes=("Sign", "MatMul")):
    """Sign and MatMul, whose input and output are declared so."""
    weight = numpy_helper.from_array(np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32), "w")
    first, second = (
        helper.make_node(nodes[0], ["x"], ["a"]),
        helper.make_node(nodes[1], ["a", "w"], ["y"]),
    )
    graph = helper.make_graph([first, second], "g", [x], [y], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize(
    "output",
    [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
        helper.make_tensor_value_info("y", TensorProto.UNDEFINED, None),
        onnx.ValueInfoProto(name="y"),
    ],
)
@pytest.mark.parametrize("size", ["N", 3])
def test_an_output_without_its_shape_or_type(tmp_path, assert_same, output, size):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [size, 6])
    imported = import_model(declared_file(tmp_path / "m.onnx", x, output), input_shapes={"x": (3, 6)})
    assert_same(imported, np.random.default_rng(1).standard_normal((3, 6)).astype(np.float32))


def test_an_input_without_its_shape(tmp_path, assert_same):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, None)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    path = declared_file(tmp_path / "m.onnx", x, y)
    imported = import_model(path, input_shapes={"x": (3, 6)})
    assert_same(imported, np.random.default_rng(1).standard_normal((3, 6)).astype(np.float32))
    with pytest.raises(ImportFailed, match="'x'"):
        import_model(path)


def test_an_input_or_output_whose_type_nothing_tells(tmp_path):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 6])
    path = declared_file(tmp_path / "m.onnx", onnx.ValueInfoProto(name="x"), onnx.ValueInfoProto(name="y"))
    with pytest.raises(ImportFailed, match="The input 'x' of .* has no type"):
        import_model(path)
    path = declared_file(tmp_path / "m.onnx", x, onnx.ValueInfoProto(name="y"), ("Sign", "Unknown"))
    with pytest.raises(ImportFailed, match="The output 'y' of .* has no type"):
        import_model(path)
