"""Places are shared by tensors that do not live at the same time, and counted."""

import re

import pytest
import tvm
from tvm import relax

from relay_passes.pipeline import finish
from relay_passes.plan_memory import activation_bytes
from schedules.c_functions import generate_functions
from schedules.codegen import generate_code
from schedules.targets.generic import GENERIC
from schedules.targets.x86_avx512 import X86_AVX512

op = relax.op
SHAPE = (1, 8, 16, 16)
BYTES = 4 * 8 * 16 * 16


def chain(length):
    """So many sums along an axis and back, none of which fuses with the next."""

    def emit_chain(emit, x):
        for _ in range(length):
            x = emit(op.nn.softmax(x, -1))
        return x

    return emit_chain


def test_counts_two_places_and_the_result_however_long_the_chain(build):
    host = tvm.target.Target({"kind": "llvm"})
    counts = {n: activation_bytes(finish(build(chain(n), SHAPE), host, GENERIC)) for n in (1, 2, 3, 8)}
    assert counts[2] - counts[1] == BYTES
    assert counts[3] - counts[2] == BYTES
    assert counts[8] == counts[3]
    assert counts[1] >= BYTES


def test_a_tensor_of_another_shape_is_a_view(build, operators):
    """Between kernels that do not take it in; nothing is copied, neither here nor when code is generated."""

    def body(emit, x):
        turned = emit(op.reshape(emit(op.nn.softmax(x, -1)), (8, 2, 128)))
        return emit(op.nn.softmax(turned, -1))

    host = tvm.target.Target({"kind": "llvm"})
    module = finish(build(body, SHAPE), host, GENERIC)
    assert operators(module).count("reshape") == 1
    library = generate_code(module, host).mod
    assert not any("reshape" in name for name in re.findall(r"^define .*@(\S+)\(", ll(library), re.MULTILINE))


def ll(module):
    """LLVM's text, of whatever part of a module has it."""
    parts = [module, *module.imports]
    return "".join(part.inspect_source("ll") for part in parts if part.kind == "llvm")


@pytest.mark.parametrize("kernels", [GENERIC, X86_AVX512], ids=lambda k: k.name)
def test_the_workspace_of_a_kernel_is_what_its_code_takes(build, kernels):
    """Channels are shuffled in one kernel, with what lies between in memory of its own; in vectors, too."""

    def shuffle(emit, x):
        parted = emit(op.permute_dims(emit(op.reshape(x, (1, 2, 4, 16, 16))), [0, 2, 1, 3, 4]))
        return emit(op.exp(emit(op.reshape(parted, SHAPE))))

    host = tvm.target.Target({"kind": "llvm"})
    finished = finish(build(shuffle, SHAPE), host, kernels)
    functions = generate_functions(finished, host, "shuffle")
    assert functions.scratch and activation_bytes(finished) == BYTES + functions.scratch
