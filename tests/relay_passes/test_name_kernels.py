"""Which kernel call computes which layer, for networks with kernels of ours and of TVM's."""

import pytest
import torch
import tvm
from torch import nn
from tvm import relax

import trainers
from bibench_tvm.compiling.processors import resolve_target
from bibench_tvm.importer import import_model
from relay_passes import finish, lower, name_kernels
from relay_passes.ir.layers import Layer
from relay_passes.pipeline import Lowered


class Attention(nn.Module):
    """A product of two activations and a transposed convolution, kept float, which TVM computes, after layers
    of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.body = nn.Sequential(*(nn.Conv2d(16, 16, 3, padding=1) for _ in range(3)))
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.up(self.body(self.stem(x))).flatten(2)
        return torch.relu(y @ y.transpose(1, 2))


def named(model: nn.Module, x: torch.Tensor) -> list[tuple[str, str]]:
    imported = import_model(model.eval(), example_inputs=x)
    target = resolve_target("host")
    lowered = lower(imported.module, imported.layer_names, target.kernels)
    finished = finish(lowered.module, target.tvm, target.kernels)
    return [(entry["kernel"], entry["layer"]) for entry in name_kernels(finished, lowered)]


def test_every_layer_is_named_in_order() -> None:
    torch.manual_seed(0)
    found = named(trainers.binarize(Attention(), "bnn", keep=["stem", "up"]), torch.zeros(1, 3, 8, 8))
    assert [layer for _, layer in found][:5] == ["stem", "body.0", "body.1", "body.2", "up"]
    assert len(found) == 6
    kernels = {layer: kernel for kernel, layer in found}
    assert kernels["stem"].startswith("float_convolution")
    assert kernels["body.0"] == kernels["body.1"], "layers that are alike share a kernel"
    assert "conv2d_transpose" in kernels["up"]
    assert "matmul" in found[-1][0]


def finished_of(*kernels: str) -> tvm.IRModule:
    """A network that calls these functions in this order."""
    builder = relax.BlockBuilder()
    functions = {}
    for name in dict.fromkeys(kernels):
        x = relax.Var("x", relax.TensorType((1,), "float32"))
        body = relax.Function([x], x, x.ty).with_attr("global_symbol", name)
        functions[name] = builder.add_func(body, name)
    x = relax.Var("x", relax.TensorType((1,), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            y = x
            for name in kernels:
                y = builder.emit(relax.Call(functions[name], [y]))
            y = builder.emit_output(y)
        builder.emit_func_output(y)
    return builder.get()


@pytest.mark.parametrize(
    ("kernels", "named"),
    [
        # TVM's are as many as the layers left: each has its own.
        (
            "bits pack bits fused_conv2d_add relu matmul1",
            "bits=a bits=b fused_conv2d_add=c matmul1=d",
        ),
        ("conv3d_transpose bits bits conv1d2_relu", "conv3d_transpose=c bits=a bits=b conv1d2_relu=d"),
        # One more than layers, or one less: nobody knows which is which, and ours keep their names.
        ("bits bits conv2d conv2d1 matmul", "bits=a bits=b"),
        ("bits bits matmul", "bits=a bits=b"),
        ("bits bits", "bits=a bits=b"),
        # Names that only contain such a word are no layers.
        ("bits bits myconv2d conv2dish matmul conv2d", "bits=a bits=b matmul=c conv2d=d"),
    ],
)
def test_kernels_of_tvm_have_a_layer_only_where_it_is_certain(kernels: str, named: str) -> None:
    layers = tuple(
        Layer(name=name, op="conv2d", binarized=name in "ab", macs=0, weight_bytes=0) for name in "abcd"
    )
    emitted = (("bits", "a"), ("pack", ""), ("bits", "b"))
    lowered = Lowered(module=tvm.IRModule(), layers=layers, kernel_calls=(), emitted=emitted, tunable=())
    found = name_kernels(finished_of(*kernels.split()), lowered)
    assert " ".join(f"{entry['kernel']}={entry['layer']}" for entry in found) == named
