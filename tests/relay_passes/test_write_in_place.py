"""What a residual is added to is written over where nothing needs it any more, and nowhere else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tvm
from torch import Tensor, nn

from bibench_tvm import compile_model
from bibench_tvm.compiling.processors import resolve_target
from bibench_tvm.importer import import_model
from relay_passes import finish, lower
from schedules.parts.bits import Packing
from schedules.parts.epilogue import SUM, Epilogue, Output, Step, Value
from schedules.parts.write_back import replacement

SHAPE = (1, 9, 9, 8)
Forward = Callable[..., Any]


def sign(x: Tensor) -> Tensor:
    return torch.where(x >= 0, 1.0, -1.0)


class Network(nn.Module):
    """forward(stem, layers, x): stem is a float layer, and layers give what they are given the signs of."""

    def __init__(self, forward: Forward, channels: int = 16) -> None:
        super().__init__()
        self._forward = forward
        self.stem = nn.Conv2d(8, channels, 1)
        self.wide = nn.Conv2d(channels, channels, 3, padding=1)
        self.layers = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(3))
        self.alone = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        for layer in (*self.layers, self.alone):
            layer.weight.data = sign(layer.weight.data)

    def forward(self, x: Tensor) -> Any:
        return self._forward(self, x.permute(0, 3, 1, 2))


def residual(net: Network, x: Tensor) -> Any:
    h = net.stem(x)
    for layer in net.layers:
        h = h + layer(sign(h)) * 0.25
    return h.mean((2, 3))


def read_later(net: Network, x: Tensor) -> Any:
    h = net.stem(x)
    return (torch.relu(h + net.layers[0](sign(h))) * h).mean((2, 3))


def one_of_two_is_read_later(net: Network, x: Tensor) -> Any:
    """The first two sums are calls of one kernel, and the second of them may not; the third has no bits."""
    sums = [net.stem(x)]
    for layer in net.layers:
        sums.append(sums[-1] + layer(sign(sums[-1])) * 0.25)
    return sums[3].mean((2, 3)), sums[1].mean((2, 3))


def of_the_input(net: Network, x: Tensor) -> Any:
    return (x + net.alone(sign(x))).mean((2, 3))


def returned(net: Network, x: Tensor) -> Any:
    h = net.stem(x)
    return (h + net.layers[0](sign(h))).permute(0, 2, 3, 1)


def returned_before(net: Network, x: Tensor) -> Any:
    h = net.stem(x)
    return h.permute(0, 2, 3, 1), (h + net.layers[0](sign(h))).mean((2, 3))


def around_a_float_layer(net: Network, x: Tensor) -> Any:
    """Its sums read neighbours of what they are added to."""
    h = torch.relu(net.stem(x))
    return (h + net.wide(h)).mean((2, 3))


def as_another_shape(net: Network, x: Tensor) -> Any:
    h = net.stem(x)
    rows = h.permute(0, 2, 3, 1).reshape(-1, 9)
    return (h + net.layers[0](sign(h))).mean((2, 3)), rows @ torch.ones(9, 2)


# How many kernels may: that of the sums with bits beside them, and that of the last sum, which has none.
NETWORKS: dict[str, tuple[Forward, int, int]] = {
    "residual": (residual, 16, 2),
    "residual of whole words": (residual, 32, 2),
    "a part of a word": (residual, 20, 1),
    "read later": (read_later, 16, 0),
    "one of two is read later": (one_of_two_is_read_later, 16, 1),
    "of the input": (of_the_input, 16, 0),
    "returned": (returned, 16, 0),
    "returned before": (returned_before, 16, 0),
    "around a float layer": (around_a_float_layer, 16, 0),
    "as another shape": (as_another_shape, 16, 0),
}


def count_united(model: nn.Module) -> int:
    """The kernels that have lost a parameter."""
    target = resolve_target("host")
    imported = import_model(model, example_inputs=torch.zeros(SHAPE))
    lowered = lower(imported.module, imported.layer_names, target.kernels).module
    finished = finish(lowered, target.tvm, target.kernels)

    def parameters(module: tvm.IRModule) -> dict[str, int]:
        functions = module.functions.items()
        return {n.name_hint: len(f.params) for n, f in functions if isinstance(f, tvm.tirx.PrimFunc)}

    before, after = parameters(lowered), parameters(finished)
    return sum(after[name] < before[name] for name in before if name in after)


@pytest.mark.parametrize("name", NETWORKS)
def test_only_what_nothing_needs(name: str, tmp_path: Path) -> None:
    forward, channels, united = NETWORKS[name]
    torch.manual_seed(0)
    model = Network(forward, channels).eval()
    assert count_united(model) == united
    samples = np.random.default_rng(0).normal(size=(3, *SHAPE[1:])).astype("float32")
    artifact = compile_model(model, torch.zeros(SHAPE), out=tmp_path, verify=3, samples=samples)
    assert artifact.manifest["verification"]["passed"], artifact.manifest["verification"]["reason"]
    given = samples.copy()
    ours = artifact.run(samples)
    np.testing.assert_array_equal(samples, given)
    with torch.no_grad():
        theirs = model(torch.from_numpy(samples))
    pairs = zip(ours, theirs, strict=True) if isinstance(theirs, tuple) else [(ours, theirs)]
    for a, b in pairs:
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-4, atol=1e-4)


X, SHAPE_OF_SUMS = Value("operand"), (1, 2, 3, 32)
BITS = Packing(channels=32, word=32)


def step(op: str, *inputs: Value) -> Step:
    return Step(f"relax.{op}", inputs)


ZERO, FIRST, SECOND = Value("number"), Value("step", 0), Value("step", 1)
NUMBER = Output(FIRST, SHAPE_OF_SUMS, "float32")
EPILOGUES = {
    "a sum": ((step("add", SUM, X),), (NUMBER,), True),
    "a sum and its bits": (
        (step("add", SUM, X), step("greater", FIRST, ZERO)),
        (NUMBER, Output(SECOND, (1, 2, 3, 1), "uint32", BITS)),
        True,
    ),
    "bits of the operand, stored after": (
        (step("add", SUM, X), step("greater", X, ZERO)),
        (NUMBER, Output(SECOND, (1, 2, 3, 1), "uint32", BITS)),
        False,
    ),
    "the operand alone, stored after": (
        (step("multiply", SUM, SUM), step("add", SUM, X)),
        (NUMBER, Output(SECOND, SHAPE_OF_SUMS, "float32")),
        True,
    ),
    "truths, which are written out again": (
        (step("greater", X, ZERO), step("where", FIRST, SUM, ZERO), step("where", FIRST, ZERO, SUM)),
        (Output(SECOND, SHAPE_OF_SUMS, "float32"), Output(Value("step", 2), SHAPE_OF_SUMS, "float32")),
        False,
    ),
    "the operand as it is": ((), (Output(X, SHAPE_OF_SUMS, "float32"),), True),
    "planes": ((step("add", SUM, X),), (Output(FIRST, SHAPE_OF_SUMS, "float32", form="planar"),), False),
    "another dtype": ((step("add", SUM, X),), (Output(FIRST, SHAPE_OF_SUMS, "int32"),), False),
}


@pytest.mark.parametrize("name", EPILOGUES)
def test_which_operand_an_output_replaces(name: str) -> None:
    steps, outputs, over = EPILOGUES[name]
    epilogue = Epilogue(((SHAPE_OF_SUMS, "float32"),), steps, outputs)
    assert bool(replacement(epilogue, 32)) == over


def test_an_operand_that_is_repeated_is_not_replaced() -> None:
    epilogue = Epilogue((((32,), "float32"),), (step("add", SUM, X),), (NUMBER,))
    assert replacement(epilogue, 32) == {}
