"""What TVM's own translator of PyTorch programs does where we repair it: a needless repair fails here.

Each case is a program of the operators that our translator sees, without our repairs.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import tvm
from torch import nn
from tvm import relax, te, topi
from tvm.relax.frontend.torch import from_exported_program

from bibench_tvm.importer.from_torch.export import core_program


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


def put_rows(x):
    y = x.clone()
    y[:, [0, 1]] = 1.0
    return y


X = torch.linspace(-3, 3, 2 * 3 * 4 * 6).reshape(2, 3, 4, 6)
IDS = torch.tensor([[0, 2], [1, -1]])
INFINITE = torch.full((1, 1, 2, 2), -torch.inf)
SMALL = torch.tensor([1e-6, -1e-6, 1e-3])
INTEGERS = torch.arange(-3, 3, dtype=torch.int32)
GRID = torch.linspace(-0.9, 0.8, 100).reshape(2, 5, 5, 2)

WRONG = {
    "product of integers": (lambda x: x @ x.T, torch.arange(6).reshape(2, 3)),
    "linear of integers": (lambda x: F.linear(x, x), torch.arange(6).reshape(2, 3)),
    "truths times a number": (lambda x: (x >= 0) * 2, X),
    "integers times a fraction": (lambda x: x * 0.5, INTEGERS),
    "quotient of integers": (lambda x: x / 2, INTEGERS),
    "alpha": (lambda x: torch.add(x, x, alpha=3), X),
    "cumsum": (lambda x: x.cumsum(0), INTEGERS),
    "max pool of an infinite window": (lambda x: F.max_pool2d(x, 2), INFINITE),
    "indices of a pool": (lambda x: F.max_pool2d(x, 2, return_indices=True)[1], X),
    "nearest": (lambda x: F.interpolate(x, (5, 7)), X),
    "bilinear": (lambda x: F.interpolate(x, scale_factor=1.3, mode="bilinear"), X),
    "bilinear smoothed": (lambda x: F.interpolate(x, (3, 4), mode="bilinear", antialias=True), X),
    "grid": (lambda x, grid: F.grid_sample(x, grid, align_corners=False), X, GRID),
    "log1p": (lambda x: x.log1p(), SMALL),
    "expm1": (lambda x: x.expm1(), SMALL),
    "selu": (lambda x: F.selu(x), X),
    "clamp between bounds that cross": (lambda x: x.clamp(1.0, -1.0), X),
    "elu of small numbers": (lambda x: F.elu(x), SMALL / 1e3),
    "any of numbers": (lambda x: x.any(1), X - 9),
    "take": (lambda x, ids: x.take(ids), X, IDS),
    "index": (lambda x, ids: x[:, ids], X, IDS),
    "index of two axes": (lambda x: x[:, [0, 1], [1, 2]], X),
    "index of two axes apart": (lambda x: x[[0, 1], :, [1, 2]], X),
    "select": (lambda x: x.select(1, -1), X),
    "average with a divisor": (lambda x: F.avg_pool2d(x, 2, divisor_override=3), X),
    "average of volumes with a divisor": (lambda x: F.avg_pool3d(x, 2, divisor_override=3), X),
}
REFUSED = {
    "product of truths": ("kDLFloat", lambda x: (x > 0) * (x < 1), X),
    "sum of truths": ("kDLFloat", lambda x: (x > 0) + (x < 0), X),
    "order of truths": ("kDLFloat", lambda x: ((x > 0) > (x > 1)).float(), X),
    "equality of truths": ("LLVM", lambda x: ((x > 0) == (x < 1)).float(), X),
    "unfold": ("unfold", lambda x: x.unfold(2, 2, 1), X),
    "any of all": ("any.default", lambda x: x.any(), X),
    "shift": ("lshift", lambda x: x << 1, INTEGERS),
    "power of two": ("exp2", lambda x: x.exp2(), X),
    "product with a power of two": ("ldexp", lambda x: torch.ldexp(x, torch.tensor(-2)), X),
    "quotient by 0": ("Divide by zero", lambda x: x / 0.0, X),
    "rounded quotient": ("same datatype", lambda x: torch.div(x, 2, rounding_mode="floor"), X),
    "amax": ("amax", lambda x: x.amax(1), X),
    "amin": ("amin", lambda x: x.amin(1), X),
    "adaptive max pool": ("adaptive_max_pool2d", lambda x: F.adaptive_max_pool2d(x, (2, 3)), X),
    "bicubic smoothed": (
        "bicubic2d_aa", lambda x: F.interpolate(x, (3, 4), mode="bicubic", antialias=True), X,
    ),
    "clamp of integers": ("infinity", lambda x: x.clamp(min=0), INTEGERS),
    "scatter of a part": (
        "same shape", lambda x, ids: x.scatter(1, ids[:, :1] % 3, x), X[0, :2, 0, :3], IDS,
    ),
    "put in rows": ("number of index tensors", put_rows, X),
    "put by a mask": ("integer dtype", lambda x: x.index_put((x > 0,), torch.tensor(1.0)), X),
    "transposed convolution of volumes": (
        "transposed convolution", lambda x: F.conv_transpose3d(x, torch.ones(3, 1, 1, 2, 2)), X[:, :, None],
    ),
}  # fmt: skip


class Together(nn.Module):
    """Several functions, each of inputs of its own: one translation and one compilation for all of them."""

    def __init__(self, functions):
        super().__init__()
        self.functions = functions

    def forward(self, *inputs):
        return [function(*given) for function, given in zip(self.functions, inputs, strict=True)]


def translated(model, *inputs):
    program = core_program(torch.export.export(model, inputs, strict=False), "it")
    return from_exported_program(program, run_ep_decomposition=False, unwrap_unit_return_tuple=True)


def run(module, *inputs):
    target = tvm.target.Target({"kind": "llvm", "opt-level": 0})
    machine = relax.VirtualMachine(tvm.compile(module, target=target), tvm.cpu())
    return machine["main"](*(tvm.runtime.tensor(x.numpy()) for x in inputs))


@pytest.fixture(scope="module")
def right():
    """The names of the cases that TVM computes as PyTorch does."""
    cases = {"needs no repair": (lambda x: F.interpolate(x, (8, 12), mode="bilinear") * 2 + 1, X), **WRONG}
    functions, inputs = [case[0] for case in cases.values()], [case[1:] for case in cases.values()]
    made = run(translated(Together(functions), *inputs), *(x for given in inputs for x in given))
    names = set()
    for name, function, given, result in zip(cases, functions, inputs, made, strict=True):
        have, wanted = result.numpy(), function(*given).numpy()
        if have.dtype == wanted.dtype and have.shape == wanted.shape and np.allclose(have, wanted, 1e-4, 0):
            names.add(name)
    return names


def test_what_needs_no_repair(right):
    assert "needs no repair" in right


@pytest.mark.parametrize("case", WRONG)
def test_wrong(case, right):
    assert case not in right, f"TVM {tvm.__version__} computes it as PyTorch does: our repair can go."


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    words, function, *inputs = REFUSED[case]
    with pytest.raises(Exception, match=words):  # in the translator or in the code generator
        run(translated(Function(function), *inputs), *inputs)
        pytest.fail(f"TVM {tvm.__version__} compiles it: our repair can go, if what it computes is right.")


def test_constants_share_the_memory_of_the_module():
    model, x = nn.Linear(3, 1, bias=False).requires_grad_(False), torch.ones(1, 3)
    model.weight.fill_(1)
    module = translated(model, x)
    model.weight.fill_(2)
    assert run(module, x).numpy() == 6, f"TVM {tvm.__version__} copies constants: ours need not."


def test_indices_are_not_bounded():
    """Of 64 bits they are cut to 32 by an embedding, and taken whatever they are."""
    module = translated(nn.Embedding(3, 2), torch.tensor([0, 2]))
    calls = [binding.value for block in module["main"].body.blocks for binding in block.bindings]
    calls = [call for call in calls if isinstance(call, relax.Call)]
    assert [call.op.name for call in calls][:2] == ["relax.astype", "relax.take"]
    assert calls[1].attrs.mode == "fast"


@pytest.mark.parametrize("name", ["sinh", "cosh"])
def test_hyperbolic_functions_of_vectors_have_no_code(name):
    x = te.placeholder((8,), "float32", name="x")
    schedule = tvm.s_tir.Schedule(te.create_prim_func([x, getattr(topi, name)(x)]))
    (loop,) = schedule.get_loops(schedule.get_sblock("compute"))
    tvm.compile(schedule.mod, target="llvm")
    schedule.vectorize(loop)
    with pytest.raises(Exception, match=f"unknown intrinsic.*{name}"):
        tvm.compile(schedule.mod, target="llvm")
