"""The scratch of a kernel: on the stack where it is small, else from TVM's pool."""

import re
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax, te, tirx, topi
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from schedules.codegen import STACK_OF_BUFFER, STACK_OF_KERNEL, generate_code
from schedules.parts.emit import each, load, store
from schedules.parts.write_back import KERNEL_ATTRIBUTES

ROWS, WIDTH = 16, 64


def row_sums(sizes: list[int], scope: str, *, in_task: bool) -> tirx.PrimFunc:
    """y[r, i] = x[r, i] * 1 + x[r, i] * 2 + ..., each of the factors or products out of a buffer of so many
    bytes: one for all rows, or one in each task."""

    def buffers() -> list[tirx.Buffer]:
        return [T.alloc_buffer((size // 4,), "float32", scope=scope) for size in sizes]

    def fill(made, value) -> None:
        for number, buffer in enumerate(made, 1):
            step = (int(buffer.shape[0]) - 1) // (WIDTH - 1)  # nearly all of it is needed
            each(WIDTH, lambda i, b=buffer, s=step, n=number: T.buffer_store(b, value(i) * n, [i * s]))

    def total(made, i):
        return sum(b[i * ((int(b.shape[0]) - 1) // (WIDTH - 1))] for b in made)

    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        T.func_attr(KERNEL_ATTRIBUTES)
        x = T.arg("x", T.buffer((ROWS, WIDTH), "float32"))
        y = T.arg("y", T.buffer((ROWS, WIDTH), "float32"))
        with T.sblock("root"):
            if not in_task:
                made = buffers()
                fill(made, lambda i: tirx.const(1, "float32"))
            with T.parallel(0, ROWS) as r:
                if in_task:
                    made = buffers()
                    fill(made, lambda i: x[r, i])
                    each(WIDTH, lambda i: T.buffer_store(y, total(made, i), [r, i]))
                else:
                    each(WIDTH, lambda i: T.buffer_store(y, x[r, i] * total(made, i), [r, i]))
    return builder.get()


def taken_from_pool(executable: Any) -> list[int]:
    """The bytes of each piece of memory that the code asks the runtime for."""
    text = executable.mod.inspect_source("ll")
    return [int(size) for size in re.findall(r"call ptr %\d+\(i32 1, i32 [^,]+, i64 (\d+), i32 2,", text)]


@pytest.mark.parametrize("in_task", [True, False])
@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize(
    ("sizes", "from_pool"),
    [
        ([256, 1024, STACK_OF_BUFFER], 0),
        ([256, 2 * STACK_OF_BUFFER], 1),
        ([STACK_OF_BUFFER] * (STACK_OF_KERNEL // STACK_OF_BUFFER + 2), 2),
    ],
)
def test_small_scratch_is_on_the_stack(
    host: Any, sizes: list[int], from_pool: int, scope: str, in_task: bool
):
    kernel = row_sums(sizes, scope, in_task=in_task)
    named = tvm.IRModule({"kernel": kernel.with_attr("global_symbol", "kernel")})
    assert len(taken_from_pool(generate_code(named, host.target))) == from_pool
    x = np.random.default_rng(0).standard_normal((ROWS, WIDTH)).astype(np.float32)
    (y,) = host.call(kernel, [x], [(x.shape, "float32")])
    np.testing.assert_allclose(y, x * sum(range(1, len(sizes) + 1)), rtol=1e-5)


@pytest.mark.parametrize(("core", "pairs"), [("cortex-a53", True), ("cortex-a55", False)])
def test_no_pairs_of_vectors_are_read_where_they_are_slow(core: str, pairs: bool) -> None:
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        x, y = (T.arg(name, T.buffer((64,), "uint8")) for name in "xy")
        with T.sblock("root"):
            store(y, 0, 64, ~load(x, 0, 64))
    named = tvm.IRModule({"kernel": builder.get().with_attr("global_symbol", "kernel")})
    target = {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": core, "mattr": ["+neon"]}
    text = str(generate_code(named, tvm.target.Target(target)).mod.inspect_source("asm"))
    assert bool(re.search(r"ldp\s+q\d+, q\d+, \[x", text)) == pairs


def test_a_run_does_what_its_kernels_need() -> None:
    """A kernel of two outputs makes no tuple of them."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((4,), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            doubled, negated = (builder.emit_te(_doubled_and_negated, x)[i] for i in range(2))
            added = builder.emit_te(topi.add, builder.emit(doubled), builder.emit(negated))
            result = builder.emit_output(added)
        builder.emit_func_output(result)
    executable = generate_code(builder.get(), tvm.target.Target("llvm"))
    called = re.findall(r"^  call +(\S+)", executable.as_text(), re.M)
    assert sorted(set(called)) == [
        "_doubled_and_negated",
        "add",
        *(
            f"vm.builtin.{name}"
            for name in ("alloc_storage", "alloc_tensor", "check_tensor_info", "match_shape", "null_value")
        ),
    ]
    values = np.arange(4, dtype="float32")
    machine = relax.VirtualMachine(executable, tvm.cpu())
    np.testing.assert_array_equal(machine["main"](tvm.runtime.tensor(values)).numpy(), values)


def _doubled_and_negated(x: te.Tensor) -> list[te.Tensor]:
    return te.compute(x.shape, lambda i: (x(i) * 2.0, -x(i)), name="both")
