"""Which kernel call computes which layer, for networks with kernels of ours and of TVM's."""

import torch
from torch import nn

import trainers
from bibench_tvm.importer import import_model
from bibench_tvm.presets import resolve_target
from relay_passes import finish, lower, name_kernels


class Attention(nn.Module):
    """A product of two activations and a transposed convolution, which TVM computes, after layers of ours."""

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
    finished = finish(lowered.module, target.tvm)
    return [(entry["kernel"], entry["layer"]) for entry in name_kernels(finished, lowered)]


def test_every_layer_is_named_in_order() -> None:
    torch.manual_seed(0)
    found = named(trainers.binarize(Attention(), "bnn"), torch.zeros(1, 3, 8, 8))
    assert [layer for _, layer in found][:5] == ["stem", "body.0", "body.1", "body.2", "up"]
    assert len(found) == 6
    kernels = {layer: kernel for kernel, layer in found}
    assert kernels["stem"].startswith("float_convolution")
    assert kernels["body.0"] == kernels["body.1"], "layers that are alike share a kernel"
    assert "conv2d_transpose" in kernels["up"]
    assert "matmul" in found[-1][0]
