"""What a finished network does, flat: calls of kernels, one after another, on places in pieces of memory.

Whoever runs a network without TVM's virtual machine needs no more than this.

Requires: a module after `plan_memory`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import tvm
from tvm import relax

from relay_passes.ir.rewrite import bindings, constant_value, dtype_of, is_call, is_constant, shape_of

ALIGNMENT = 64  # bytes, of constants and of what lies in the workspace


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a tensor begins: in an input or output (`index`), among the constants, or in the workspace."""

    memory: Literal["input", "output", "constants", "workspace"]
    index: int = 0
    offset: int = 0  # bytes


@dataclass(frozen=True, kw_only=True)
class KernelUse:
    """A call of the kernel, a function of the module, on tensors in the order of its parameters."""

    kernel: str
    places: tuple[Place, ...]


@dataclass(frozen=True, kw_only=True)
class TensorType:
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, kw_only=True)
class Flat:
    """A network without control flow; sizes in bytes. Nested tuples of outputs are one list of tensors.
    unchecked: what it asks of its values, in words, and no call sees to."""

    inputs: tuple[TensorType, ...]
    outputs: tuple[TensorType, ...]
    calls: tuple[KernelUse, ...]
    constants: bytes
    workspace: int
    unchecked: tuple[str, ...] = ()


_ASSERT = "relax.run.assert_op"


def _called(value: relax.Expr) -> str:
    """The name of an operator, or of a function of TVM's runtime; empty for what is no call."""
    if not isinstance(value, relax.Call):
        return ""
    return str(value.op.global_symbol if isinstance(value.op, relax.ExternFunc) else value.op.name)


class NotFlat(ValueError):
    """The network does what is no call of a kernel; the message names it."""


def aligned(size: int) -> int:
    """The next multiple of ALIGNMENT."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def flatten(finished: tvm.IRModule) -> Flat:
    """Each constant is there once. Raises NotFlat."""
    walk = _Walk(finished)
    for binding in bindings(finished):
        walk.visit(binding.var, binding.value)
    main = finished["main"]
    results = walk.leaves(main.body.body)
    outputs = {place: index for index, place in enumerate(results)}

    def settled(place: Any) -> Place:
        if not isinstance(place, _Result):
            return place
        if place in outputs:
            return Place(memory="output", index=outputs[place])
        return Place(memory="workspace", offset=walk.reserve_result(place))

    calls = tuple(
        KernelUse(kernel=kernel, places=tuple(settled(place) for place in places))
        for kernel, places in walk.calls
    )
    return Flat(
        inputs=tuple(_type(parameter) for parameter in main.params),
        outputs=tuple(result.type for result in results),
        calls=calls,
        constants=bytes(walk.constants),
        workspace=walk.workspace,
        unchecked=tuple(dict.fromkeys(walk.unchecked)),
    )


def _type(tensor: relax.Expr) -> TensorType:
    return TensorType(shape=shape_of(tensor), dtype=dtype_of(tensor))


@dataclass(frozen=True)
class _Result:
    """A tensor with memory of its own, which may be an output: `main` says so at its end."""

    index: int
    type: TensorType

    @property
    def size(self) -> int:
        return tvm.DataType(self.type.dtype).itemsize * math.prod(self.type.shape)


class _Walk:
    def __init__(self, finished: tvm.IRModule):
        self.calls: list[tuple[str, list[Any]]] = []
        self.constants = bytearray()
        self.workspace = 0
        self.unchecked: list[str] = []
        self._values: dict[relax.Var, Any] = {
            parameter: Place(memory="input", index=index)
            for index, parameter in enumerate(finished["main"].params)
        }
        self._constant_at: dict[bytes, int] = {}
        self._results: dict[_Result, int] = {}
        self._made = 0

    def reserve(self, size: int) -> int:
        start = self.workspace
        self.workspace += aligned(size)
        return start

    def reserve_result(self, result: _Result) -> int:
        if result not in self._results:
            self._results[result] = self.reserve(result.size)
        return self._results[result]

    def visit(self, var: relax.Var, value: relax.Expr) -> None:
        if isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.GlobalVar):
            places = [place for argument in value.args for place in self.leaves(argument)]
            self.calls.append((str(value.op.name_hint), places))
        elif is_call(value, "relax.memory.alloc_storage"):
            self._values[var] = Place(memory="workspace", offset=self.reserve(int(value.args[0].values[0])))
        elif is_call(value, "relax.memory.alloc_tensor"):
            start = self._values[value.args[0]].offset + int(value.args[1].value)
            self._values[var] = Place(memory="workspace", offset=start)
        elif is_call(value, "relax.builtin.alloc_tensor"):
            self._values[var] = _Result(self._made, _type(var))
            self._made += 1
        elif is_call(value, "relax.reshape"):
            self._values[var] = self._value(value.args[0])
        elif _called(value) == _ASSERT:
            # What a network asks of its values, as PyTorch does of the classes of `one_hot`: C has no words
            # for it. The last argument says what.
            self.unchecked.append(str(value.args[-1].value))
        elif isinstance(value, (relax.Call, relax.If)):
            raise NotFlat(_called(value) or "if")
        else:
            self._values[var] = self._value(value)

    def leaves(self, expr: relax.Expr) -> list[Any]:
        """The places of a tensor, or of all in nested tuples."""

        def spread(value: Any) -> list[Any]:
            return [leaf for item in value for leaf in spread(item)] if isinstance(value, list) else [value]

        return spread(self._value(expr))

    def _value(self, expr: relax.Expr) -> Any:
        if isinstance(expr, relax.Var):
            return self._values[expr]
        if isinstance(expr, relax.Tuple):
            return [self._value(field) for field in expr.fields]
        if isinstance(expr, relax.TupleGetItem):
            return self._value(expr.tuple_value)[expr.index]
        if is_constant(expr):
            return Place(memory="constants", offset=self._place_constant(constant_value(expr)))
        raise NotFlat(type(expr).__name__)

    def _place_constant(self, value: np.ndarray) -> int:
        content = np.ascontiguousarray(value).tobytes()
        if content not in self._constant_at:
            self._constant_at[content] = len(self.constants)
            self.constants += content.ljust(aligned(len(content)), b"\0")
        return self._constant_at[content]
