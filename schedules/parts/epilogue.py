"""What a kernel does with a sum before it writes it: scale, batch norm, residual, activation, packing.

An `Epilogue` is a straight-line program over one output element. The same table of operators (`OPERATORS`)
gives its meaning twice: on TIR scalars inside a kernel, and on whole numpy arrays, which is the slow obvious
twin that tests and `--verify` compare with, and what the folding of thresholds evaluates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import tvm
from tvm import tirx
from tvm.script.ir_builder import tirx as T
from tvm.sym import Analyzer

from schedules.parts.bits import Packing, pack
from schedules.parts.emit import load, store, vector
from schedules.parts.rationals import ERF, TANH, exponential, rational
from schedules.parts.truths import as_number, opposite


class _OnArrays:
    """numpy, with float32 kept float32 (a Python scalar does not widen an array under NEP 50)."""

    maximum, minimum, where, exp, tanh, sqrt, abs, rint = (
        np.maximum,
        np.minimum,
        np.where,
        np.exp,
        np.tanh,
        np.sqrt,
        np.abs,
        np.rint,
    )
    logical_not = staticmethod(np.logical_not)

    @staticmethod
    def erf(x):
        return np.vectorize(math.erf, otypes=[np.float32])(x)

    @staticmethod
    def cast(x, dtype):
        return np.asarray(x).astype(dtype)


class _InKernel:
    """TIR expressions of one element, or of a vector of them. `Select` evaluates both sides."""

    maximum, minimum = staticmethod(tirx.max), staticmethod(tirx.min)
    exp, sqrt, abs = staticmethod(exponential), staticmethod(tirx.sqrt), staticmethod(tirx.abs)
    logical_not = staticmethod(opposite)
    rint = staticmethod(tirx.nearbyint)

    @staticmethod
    def erf(x):
        return rational(x, ERF)

    @staticmethod
    def tanh(x):
        return rational(x, TANH)

    @staticmethod
    def where(condition, yes, no):
        return tirx.Select(condition, yes, no)

    @staticmethod
    def cast(x, dtype):
        given, vector, lanes = str(x.ty).partition("x")
        if given == "bool":
            return as_number(x, dtype)
        return x.astype(f"{dtype}{vector}{lanes}")


# name of the Relax operator -> its meaning on (math, *operands, **attributes).
# Every entry works element by element with numpy's broadcasting.
OPERATORS: dict[str, Callable[..., Any]] = {
    "relax.add": lambda m, a, b: a + b,
    "relax.subtract": lambda m, a, b: a - b,
    "relax.multiply": lambda m, a, b: a * b,
    "relax.divide": lambda m, a, b: a / b,
    "relax.maximum": lambda m, a, b: m.maximum(a, b),
    "relax.minimum": lambda m, a, b: m.minimum(a, b),
    "relax.greater_equal": lambda m, a, b: a >= b,
    "relax.greater": lambda m, a, b: a > b,
    "relax.less_equal": lambda m, a, b: a <= b,
    "relax.less": lambda m, a, b: a < b,
    "relax.logical_xor": lambda m, a, b: m.where(b, m.logical_not(a), a),
    "relax.logical_and": lambda m, a, b: m.where(b, a, b),
    "relax.logical_or": lambda m, a, b: m.where(b, b, a),
    "relax.logical_not": lambda m, a: m.logical_not(a),
    "relax.bitwise_xor": lambda m, a, b: a ^ b,
    "relax.where": lambda m, c, a, b: m.where(c, a, b),
    "relax.negative": lambda m, a: -a,
    "relax.abs": lambda m, a: m.abs(a),
    "relax.sqrt": lambda m, a: m.sqrt(a),
    "relax.exp": lambda m, a: m.exp(a),
    "relax.tanh": lambda m, a: m.tanh(a),
    "relax.sigmoid": lambda m, a: _as(a, 1) / (_as(a, 1) + m.exp(-a)),
    "relax.erf": lambda m, a: m.erf(a),
    "relax.nn.gelu": lambda m, a: a * _as(a, 0.5) * (_as(a, 1) + m.erf(a * _as(a, math.sqrt(0.5)))),
    "relax.nn.gelu_tanh": lambda m, a: a * _as(a, 0.5) * (_as(a, 1) + m.tanh(_inside_gelu(a))),
    "relax.round": lambda m, a: m.rint(a),
    "relax.astype": lambda m, a, dtype: m.cast(a, dtype),
    "relax.clip": lambda m, a, lower, upper: m.minimum(m.maximum(a, lower), upper),
    "relax.nn.relu": lambda m, a: m.maximum(a, _as(a, 0)),
    "relax.nn.leakyrelu": lambda m, a, alpha: m.where(a > _as(a, 0), a, a * _as(a, alpha)),
}


def _inside_gelu(a):
    """What the approximation of GELU takes tanh of."""
    return (a + a * a * a * _as(a, 0.044715)) * _as(a, math.sqrt(2 / math.pi))


def _as(like, value):
    return tirx.const(value, str(like.ty)) if isinstance(like, tvm.ir.Expr) else np.asarray(value, like.dtype)


# How often an operator writes out what it is of, about; once where it is not here.
_TIMES = {
    **dict.fromkeys(("relax.tanh", "relax.erf", "relax.nn.gelu"), 16),
    **dict.fromkeys(("relax.exp", "relax.sigmoid"), 8),
    "relax.nn.gelu_tanh": 64,
    "relax.nn.leakyrelu": 2,
}
_MOST_WRITTEN = 256  # operators of an expression
_MAY_BE_TRUTHS = frozenset(
    name
    for name in OPERATORS
    if name.startswith(("relax.greater", "relax.less", "relax.logical"))
    or name in ("relax.where", "relax.astype")
)


@dataclass(frozen=True)
class Value:
    """A thing that a step reads: the kernel's sum, an operand of the kernel, an earlier step, or a number.

    A "table" is three operands from `index` on, as `borders.inside_sums` gives them: what depends on how near
    to a border a pixel lies, and on the channel. A "repeated" operand has fewer channels than the kernel, and
    begins again after the last."""

    kind: str  # "sum" | "operand" | "repeated" | "table" | "step" | "number"
    index: int = 0
    number: float | int | bool = 0
    dtype: str = "float32"


SUM = Value("sum")


@dataclass(frozen=True)
class Step:
    op: str
    inputs: tuple[Value, ...]
    attributes: dict[str, Any] = field(default_factory=dict)


Extreme = Literal["max", "min"]
Form = Literal["planar", "swapped", Extreme]
"""How numbers are written where not as they are computed, [N, H, W, C]: as planes, [N, C, H, W], of 32 bits
each; with rows and columns in each other's places, [N, W, H, C]; or of each channel the largest or the
smallest alone, of each image or of each row, as the shape says, which is then that of all extremes. A kernel
does not write planes and extremes."""


@dataclass(frozen=True)
class Output:
    """One tensor that the kernel writes: the value itself, or with `packing` its truth as packed bits."""

    value: Value
    shape: tuple[int, ...]
    dtype: str
    packing: Packing | None = None
    form: Form | None = None

    @property
    def extreme(self) -> Extreme | None:
        return self.form if self.form == "max" or self.form == "min" else None


@dataclass(frozen=True)
class Epilogue:
    """Operands broadcast against the kernel's output from the right, as in numpy."""

    operands: tuple[tuple[tuple[int, ...], str], ...]  # (shape, dtype) of each
    steps: tuple[Step, ...]
    outputs: tuple[Output, ...]

    def is_integer(self, value: Value) -> bool:
        """Whether no float has a part in this value, so that it is exact on any machine."""
        if value.kind in ("operand", "repeated", "table"):
            return "float" not in self.operands[value.index][1]
        if value.kind == "number":
            return "float" not in value.dtype
        if value.kind == "sum":
            return True
        step = self.steps[value.index]
        exact = "float" not in str(step.attributes.get("dtype", ""))
        return exact and all(self.is_integer(v) for v in step.inputs)

    def _readers(self, value: Value) -> int:
        steps = sum(step.inputs.count(value) for step in self.steps)
        return steps + sum(output.value == value for output in self.outputs)

    def replaceable(self, output: int) -> int | None:
        """The operand whose place this output may take: each number of it is read once, before `emit`'s value
        for the same place of the output is stored, and by nothing that is stored later. What several steps
        read is bound before anything is stored; truths are not."""
        written = self.outputs[output]
        if written.packing or written.form:
            return None
        for index, spec in enumerate(self.operands):
            value = Value("operand", index)
            if spec != (written.shape, written.dtype) or self._readers(value) != 1:
                continue
            while self._readers(value) == 1 and any(value in step.inputs for step in self.steps):
                value = Value("step", next(i for i, step in enumerate(self.steps) if value in step.inputs))
            stored = [i for i, other in enumerate(self.outputs) if other.value == value]
            bound = self._readers(value) > 1 and self.steps[value.index].op not in _MAY_BE_TRUTHS
            if bound or stored and max(stored) <= output:
                return index
        return None

    def _turns_at_zero(self, step: Step) -> bool:
        """Whether this is where(x > 0, x, x * slope), of a float: what a PReLU is."""
        if step.op != "relax.where" or any(value.kind != "step" for value in step.inputs):
            return False
        condition, below = (self.steps[step.inputs[i].index] for i in (0, 2))
        x = step.inputs[1]
        return (
            condition.op in ("relax.greater", "relax.greater_equal")
            and condition.inputs[0] == x
            and condition.inputs[1].kind == "number"
            and condition.inputs[1].number == 0
            and below.op == "relax.multiply"
            and x in below.inputs
            and not self.is_integer(x)
        )

    def evaluate(self, total: np.ndarray, operands: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The slow twin. total: the kernel's sums, in the shape of its output."""
        done: list[np.ndarray] = []

        def read(v: Value):
            if v.kind == "sum":
                return total
            if v.kind == "operand":
                return operands[v.index]
            if v.kind == "repeated":
                operand = operands[v.index]
                return np.tile(operand, total.shape[-1] // operand.shape[-1])
            if v.kind == "table":
                table, rows, columns = operands[v.index : v.index + 3]
                return table[rows][:, columns]
            return done[v.index] if v.kind == "step" else np.asarray(v.number, v.dtype)

        with np.errstate(all="ignore"):
            for step in self.steps:
                done.append(OPERATORS[step.op](_OnArrays, *map(read, step.inputs), **step.attributes))
        results = []
        for output in self.outputs:
            value = np.broadcast_to(read(output.value), total.shape)
            if output.form == "planar":
                value = value.transpose(0, 3, 1, 2)
            if output.form == "swapped":
                value = value.swapaxes(1, 2)
            if output.extreme:
                images = math.prod(output.shape) // value.shape[-1]
                value = getattr(value.reshape(images, -1, value.shape[-1]), output.extreme)(axis=1)
            results.append(
                pack(value, output.packing)
                if output.packing
                else value.astype(output.dtype).reshape(output.shape)
            )
        return results

    def emit(
        self, total: Any, index: Sequence[Any], buffers: Sequence[tirx.Buffer], lanes: int = 1
    ) -> list[Any]:
        """The value of every output at `index` (batch, row, column, channel), as TIR.

        With `lanes`, for so many channels from there on, as vectors; `total` is a vector then, too.
        """
        done: list[Any] = []

        def spread(scalar: Any) -> Any:
            return T.broadcast(scalar, lanes) if lanes > 1 else scalar

        def read(v: Value):
            if v.kind == "sum":
                return total
            if v.kind in ("operand", "repeated", "table"):
                if not buffers[v.index].shape:
                    return spread(tirx.BufferLoad(buffers[v.index], []))
                *outer, channel = broadcast_index(buffers[v.index].shape, index)
                if v.kind == "table":
                    outer = [
                        classes[at].astype("int32")
                        for classes, at in zip(buffers[v.index + 1 : v.index + 3], index[1:3], strict=True)
                    ]
                if v.kind == "repeated":
                    return _again(buffers[v.index], outer, channel, lanes)
                if lanes > 1 and int(buffers[v.index].shape[-1]) > 1:
                    return buffers[v.index][(*outer, T.ramp(channel, 1, lanes))]
                return spread(buffers[v.index][(*outer, channel)])
            return done[v.index] if v.kind == "step" else spread(tirx.const(v.number, v.dtype))

        def once(value: Any, of: Value) -> Any:
            """What several read is bound; as an expression it would be written out for each of them."""
            shared = self._readers(of) > 1 and not str(value.ty).startswith("bool")
            return T.Bind(value) if shared else value

        total = total if total is None else once(total, SUM)
        sizes: list[int] = []

        def size(value: Value) -> int:
            return sizes[value.index] if value.kind == "step" else 1

        for i, step in enumerate(self.steps):
            times = _TIMES.get(step.op, 1)
            for value in step.inputs:
                # TVM 0.27 writes out what is bound, and takes minutes for a function of a function of one.
                if size(value) * times > _MOST_WRITTEN and not str(done[value.index].ty).startswith("bool"):
                    done[value.index], sizes[value.index] = _kept(done[value.index], lanes), 1
            sizes.append(1 + times * sum(size(value) for value in step.inputs))
            inputs = [read(value) for value in step.inputs]
            if self._turns_at_zero(step):
                turned = tirx.Select(_negative(inputs[1]), inputs[2], inputs[1])
                done.append(once(turned, Value("step", i)))
                continue
            done.append(once(OPERATORS[step.op](_InKernel, *inputs, **step.attributes), Value("step", i)))
        return [read(output.value) for output in self.outputs]


def _kept(value: Any, lanes: int) -> Any:
    """The same, from memory."""
    place = T.alloc_buffer((lanes,), str(value.ty).partition("x")[0], scope="local")
    store(place, 0, lanes, value)
    return load(place, 0, lanes)


def _negative(x: Any) -> Any:
    """The truth of each float's sign, which some processors select by, without a comparison."""
    whole = str(x.ty).replace("float32", "int32")
    return tirx.call_intrin(whole, "tirx.reinterpret", x) < tirx.const(0, whole)


def broadcast_index(shape: Sequence[Any], index: Sequence[Any]) -> list[Any]:
    """Where an operand of this shape is read for an output element: from the right, 0 where it has 1."""
    tail = index[len(index) - len(shape) :]
    return [0 if int(extent) == 1 else i for extent, i in zip(shape, tail, strict=True)]


def _again(buffer: tirx.Buffer, outer: Sequence[Any], channel: Any, lanes: int) -> Any:
    """`lanes` channels from `channel` on of a buffer whose channels repeat.

    In stretches that do not reach over its end: so long that they divide its channels, the lanes, and where
    they can begin."""
    extent = int(buffer.shape[-1])
    begins = Analyzer().modular_set(tirx.const(channel) if isinstance(channel, int) else channel)
    size = math.gcd(extent, lanes, begins.coeff, begins.base)
    parts = [vector(buffer, [*outer, (channel + i) % extent], size) for i in range(0, lanes, size)]
    return parts[0] if len(parts) == 1 else tirx.Shuffle(parts, list(range(lanes)))


def plain(shape: tuple[int, ...], dtype: str) -> Epilogue:
    """Writes the sum as it is."""
    return Epilogue((), (), (Output(SUM, shape, dtype),))


def evaluate_operator(call: tvm.ir.Expr, arrays: Sequence[Any]) -> np.ndarray:
    """One Relax call of `OPERATORS` on arrays that stand for all of its operands, numbers included."""
    with np.errstate(all="ignore"):
        return OPERATORS[call.op.name](_OnArrays, *arrays, **step_attributes(call))


def step_attributes(call: tvm.ir.Expr) -> dict[str, Any]:
    """What an entry of `OPERATORS` takes besides operands."""
    if call.op.name == "relax.astype":
        return {"dtype": str(call.attrs.dtype)}
    if call.op.name == "relax.nn.leakyrelu":
        return {"alpha": float(call.attrs.alpha)}
    return {}
