"""Modules, exported programs, `.pt2` files and checkpoints: names, constants, shapes, and every bad file."""

import io
import json
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from tvm import relax

import trainers
from bibench_tvm.cli.errors import BibenchError
from bibench_tvm.importer import ImportFailed, import_model

ROOT = Path(__file__).parents[4]


class XnorConv(nn.Conv2d):
    """A binary convolution that computes its activation scale K by a second convolution."""

    def forward(self, x):
        scale = self.weight.abs().mean((1, 2, 3), keepdim=True)
        weight = torch.where(self.weight >= 0, 1.0, -1.0) * scale
        mean = x.abs().mean(1, keepdim=True)
        k = F.conv2d(mean, torch.full((1, 1, 3, 3), 1 / 9), padding=1)
        return F.conv2d(torch.where(x >= 0, 1.0, -1.0), weight, self.bias, 1, 1) * k


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 20, 3, padding=1)
        self.layers = nn.Sequential(nn.BatchNorm2d(20), XnorConv(20, 20, 3), nn.Hardtanh())
        self.head = nn.Linear(20, 10)

    def forward(self, x):
        x = self.layers(self.stem(x))
        return self.head(x.mean((2, 3)))


def conv_weights(imported):
    return [
        binding.value.args[1].value.numpy()
        for block in imported.module["main"].body.blocks
        for binding in block.bindings
        if isinstance(binding.value, relax.Call)
        and getattr(binding.value.op, "name", "") == "relax.nn.conv2d"
    ]


def image(*shape):
    return np.random.default_rng(0).standard_normal(shape or (2, 3, 8, 9)).astype(np.float32)


@pytest.fixture
def pt2(tmp_path):
    path = tmp_path / "m.pt2"
    torch.export.save(torch.export.export(Net().eval(), (torch.zeros(2, 3, 8, 9),)), path)
    return path


def rewritten(path, change, target):
    """Copy the archive; `change(name, bytes)` returns the new bytes, or None to drop the entry."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as out:
        for name in source.namelist():
            data = change(name, source.read(name))
            if data is not None:
                out.writestr(name, data)
    return target


def test_module(assert_same):
    model = Net()
    model.layers.eval()
    imported = assert_same(import_model(model, example_inputs=image()), image())
    assert list(imported.layer_names.values()) == ["stem", "layers.1.convolution", "layers.1", "head"]
    assert model.training and not model.layers.training
    run = imported.reference([image()])
    np.testing.assert_allclose(run.outputs[0], model.eval()(torch.from_numpy(image())).detach(), atol=1e-6)
    np.testing.assert_array_equal(run.layer_inputs["stem"][0], image())
    assert set(np.unique(run.layer_inputs["layers.1"][0])) == {-1, 1}
    # The binarized weights are those of PyTorch, to the last bit.
    weight = model.layers[1].weight.detach()
    expected = torch.where(weight >= 0, 1.0, -1.0) * weight.abs().mean((1, 2, 3), keepdim=True)
    np.testing.assert_array_equal(conv_weights(imported)[2], expected)


def test_constants_do_not_share_memory_with_the_module():
    model = Net()
    before = model.stem.weight.detach().clone()
    imported = import_model(model, example_inputs=image())
    with torch.no_grad():
        model.stem.weight.zero_()
    np.testing.assert_array_equal(conv_weights(imported)[0], before)


def test_a_module_called_twice_and_products(assert_same):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.attend = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x):
            x = self.conv(self.conv(x)).flatten(2).transpose(1, 2)
            x = F.pad(x, (0, 1))
            return self.attend(x, x, x, need_weights=False)[0] @ x.transpose(1, 2)

    imported = assert_same(import_model(Twice(), example_inputs=image()), image())
    names = list(imported.layer_names.values())
    assert names[:2] == ["conv", "conv#2"]
    assert names[-1] == "matmul"
    assert sum(name.startswith("attend") for name in names) == len(names) - 3
    assert len(imported.reference([image()]).layer_inputs["matmul"]) == 2


def test_several_inputs_and_a_dictionary(assert_same):
    class Sum(nn.Module):
        def forward(self, a, b):
            return {"sum": a + b["x"], "product": a * b["x"]}

    program = torch.export.export(Sum(), (torch.zeros(2, 3), {"x": torch.zeros(3)}))
    imported = import_model(program)
    assert [spec.shape for spec in imported.inputs] == [(2, 3), (3,)]
    assert_same(imported, image(2, 3), image(3))


def test_gradients_switched_off_inside(assert_same):
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            with torch.no_grad():
                x = self.conv(x)
            return x.detach() + 1

    imported = assert_same(import_model(Frozen(), example_inputs=image()), image())
    assert list(imported.layer_names.values()) == ["conv"]


@pytest.mark.parametrize("algorithm", trainers.list_algorithms())
def test_algorithms(algorithm, assert_same):
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 12, 3, padding=1), nn.Flatten(), nn.Linear(504, 5)
    )
    model = trainers.binarize(layers, algorithm=algorithm, keep=["0"]).eval()
    imported = assert_same(import_model(model, example_inputs=image()), image())
    assert {"0", "2", "4"} <= set(imported.layer_names.values())


def test_pt2(pt2, assert_same):
    imported = assert_same(import_model(pt2), image())
    assert list(imported.layer_names.values()) == ["stem", "layers.1.convolution", "layers.1", "head"]
    renamed = pt2.rename(pt2.with_suffix(".bin"))
    assert import_model(renamed).layer_names == imported.layer_names


def test_pt2_with_a_dynamic_batch(tmp_path, assert_same):
    path = tmp_path / "m.pt2"
    batch = {0: torch.export.Dim("batch", min=1, max=9)}
    torch.export.save(
        torch.export.export(Net().eval(), (torch.zeros(2, 3, 8, 9),), dynamic_shapes=(batch,)), path
    )
    imported = assert_same(import_model(path), image(1, 3, 8, 9))
    assert "--input-shape x:Nx3x8x9" in imported.notes[0]
    with pytest.raises(ImportFailed, match=r"is \?x3x8x9, so it cannot be 1x3x8x8; export it again"):
        import_model(path, input_shapes={"x": (1, 3, 8, 8)})
    with pytest.raises(ImportFailed, match="no input 'y'; its input is x"):
        import_model(path, input_shapes={"y": (1, 3, 8, 8)})
    imported = assert_same(import_model(path, input_shapes={None: (4, 3, 8, 9)}), image(4, 3, 8, 9))
    assert list(imported.layer_names.values()) == ["stem", "layers.1.convolution", "layers.1", "head"]
    program = torch.export.load(path)
    assert import_model(program, example_inputs=image(4, 3, 8, 9)).inputs[0].shape == (4, 3, 8, 9)


def test_checkpoint(tmp_path, assert_same):
    torch.manual_seed(0)
    model = trainers.binarize(
        trainers.create_model("resnet20", num_classes=10, in_channels=3), algorithm="xnor"
    )
    path = tmp_path / "m.pt"
    trainers.save_checkpoint(
        path, model.eval(), arch="resnet20", algorithm="xnor", sizes={"num_classes": 10, "in_channels": 3},
    )  # fmt: skip
    imported = import_model(path)
    assert imported.inputs[0].shape == (1, *model.input_shape)
    assert import_model(path, input_shapes={None: (2, *model.input_shape)}).inputs[0].shape[0] == 2
    x = image(*imported.inputs[0].shape)
    np.testing.assert_allclose(
        imported.reference([x]).outputs[0], model(torch.from_numpy(x)).detach(), atol=1e-5
    )
    with pytest.raises(ImportFailed, match="algorithm 'xnor', not 'bnn'"):
        import_model(path, algorithm="bnn")
    with pytest.raises(ImportFailed, match="one input, but 2 shapes"):
        import_model(path, input_shapes={"a": (1,), "b": (1,)})
    torch.save({"a": 1}, path)
    with pytest.raises(ImportFailed, match=re.escape(str(path))):
        import_model(path)


def test_bad_files(pt2, tmp_path):
    content = pt2.read_bytes()

    def refused(words, data):
        path = tmp_path / "bad.pt2"
        path.write_bytes(data)
        with pytest.raises(ImportFailed, match=words) as caught:
            import_model(path)
        assert str(path) in str(caught.value)

    refused("truncated", content[: len(content) // 2])
    refused("text file", b"hello")
    flipped = bytearray(content)
    flipped[content.index(b"weight_0") + 4000] ^= 0xFF
    refused("damaged", bytes(flipped))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("word/document.xml", "<a/>")
    refused("zip archive, but neither", buffer.getvalue())
    script = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.ReLU(), torch.zeros(1)), script)
    refused("TorchScript", script.getvalue())


class Exploit:
    def __reduce__(self):
        return exec, ("raise SystemExit('the file ran code')",)


def test_a_pt2_cannot_run_code(pt2, tmp_path):
    def refused(words, change):
        with pytest.raises(ImportFailed, match=words):
            import_model(rewritten(pt2, change, tmp_path / "bad.pt2"))

    def replaced(part, old, new):
        def change(name, data):
            if part in name:
                assert old in data
                return data.replace(old, new)
            return data

        return change

    def in_place_of(part, payload):
        return lambda name, data: payload if part in name else data

    zipped = io.BytesIO()
    torch.save(Exploit(), zipped)
    refused("example inputs that are not plain tensors", in_place_of("data/sample_inputs", zipped.getvalue()))
    refused(
        "example inputs that are not plain tensors",
        in_place_of("data/sample_inputs", pickle.dumps(Exploit())),
    )
    refused("as a pickled object", replaced("weights_config", b'"use_pickle": false', b'"use_pickle": true'))
    refused(
        "'torch.hub.load' .not a tensor operator",
        replaced("model.json", b'"torch.ops.aten.conv2d.default"', b'"torch.hub.load"'),
    )
    refused(
        "not plain arithmetic",
        replaced(
            "model.json", b'{"as_int": 20}', b'{"as_expr": {"expr_str": "exec(chr(49))", "hint": null}}'
        ),
    )

    def add_constants(name, data):
        payload = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
        return json.dumps({"config": {"c": payload}}).encode() if "constants_config" in name else data

    refused("'c' as a pickled object", add_constants)
    refused("'c' as a pickled object", lambda n, d: (add_constants(n, d) or b"").replace(b"true", b"false"))
    with zipfile.ZipFile(pt2, "a") as archive:
        archive.writestr("m/Data/sample_inputs/model.pt", pickle.dumps(Exploit()))
    with pytest.raises(ImportFailed, match="two entries of one name"):
        import_model(pt2)


def test_a_pt2_cannot_load_libraries(pt2):
    with zipfile.ZipFile(pt2, "a") as archive:
        archive.writestr("m/data/aotinductor/model/a.so", b"\x7fELF")
    with pytest.raises(ImportFailed, match="compiled libraries"):
        import_model(pt2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_bad_weights(value):
    model = Net()
    with torch.no_grad():
        model.layers[1].weight[3, 2] = value
    with pytest.raises(
        ImportFailed, match=r"parameter 'layers\.1\.weight' of Net has 9 values that are NaN or inf"
    ):
        import_model(model, example_inputs=image())


def test_bad_buffer():
    model = nn.Sequential(nn.BatchNorm2d(3))
    model[0].running_var[1] = np.nan
    with pytest.raises(ImportFailed, match=r"buffer '0\.running_var'"):
        import_model(model, example_inputs=image())


def test_what_cannot_be_compiled():
    class Inner(nn.Module):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def forward(self, x):
            return self.function(x)

    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x):
            self.count += 1
            return x * self.count

    def refused(words, model, inputs=None):
        with pytest.raises(ImportFailed, match=words) as caught:
            import_model(model, example_inputs=image() if inputs is None else inputs)
        assert str(caught.value).endswith(".")

    refused(
        r"'\w*fft\w*' \(operator aten\.\w*fft\w*\.default in module '0'\) of Sequential is complex64",
        nn.Sequential(Inner(torch.fft.rfft)),
    )
    refused(r"random numbers with aten\.randn_like.* in module '0'", nn.Sequential(Inner(torch.randn_like)))
    refused("changes its state 'count'", Counting())
    refused("cannot export Inner", Inner(lambda x: x if x.sum() > 0 else -x))
    refused("cannot export Conv2d", nn.Conv2d(4, 4, 3))
    refused("returns .* not a tensor", Inner(lambda x: (x, 3)))
    refused("uses the indices of aten.max_pool2d", nn.MaxPool2d(2, return_indices=True))
    refused(
        "The tensor 'input' of Conv2d is float64.*--float32",
        nn.Conv2d(3, 4, 3).double(),
        image().astype(float),
    )
    with pytest.raises(ImportFailed, match="pass example_inputs"):
        import_model(Net())
    with pytest.raises(ImportFailed, match="A dict cannot be imported"):
        import_model({})


def test_module_by_shape():
    assert import_model(Net(), input_shapes={None: (1, 3, 8, 8)}).outputs[0].shape == (1, 10)
    named = import_model(Net(), input_shapes={"x": (1, 3, 8, 8)})
    assert [(spec.name, spec.shape) for spec in named.inputs] == [("x", (1, 3, 8, 8))]
    with pytest.raises(ImportFailed, match=r"Net has no input 'foo'; its input is x\."):
        import_model(Net(), input_shapes={"foo": (1, 3, 8, 8)})


def test_module_with_inputs_of_any_number():
    class Sum(nn.Module):
        def forward(self, *xs):
            return sum(xs)

    assert len(import_model(Sum(), input_shapes={"a": (1, 3), "b": (1, 3)}).inputs) == 2


def test_strict_export_has_the_same_names():
    program = torch.export.export(Net().eval(), (torch.from_numpy(image()),), strict=True)
    names = ["stem", "layers.1.convolution", "layers.1", "head"]
    assert list(import_model(program).layer_names.values()) == names


def test_onnx_is_not_needed_for_pytorch(pt2):
    code = (
        "import sys; sys.modules['onnx'] = None; from bibench_tvm.importer import import_model; "
        f"import_model({str(pt2)!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bibench_tvm.importer.from_onnx.translate", None)
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x08\x08\x12\x00")
    with pytest.raises(BibenchError, match=r"an ONNX file, cannot be read without the package"):
        import_model(path)
