"""Replace what is binary by binary operators, and write down for everything else why it stays float.

convolution(x, w), x in {low, high}, w = +-alpha[o]
    ->  scale[o] * astype(binary_convolution(pack(x is high), sign w))

{-h, +h}: scale = h * alpha.   {0, h} and {l, 0}: the integer part is 2 * sum over {0, 1} (see
schedules/parts/borders.py), so scale = h / 2 * alpha, or l / 2 * alpha over the bits "x is low".

A sign that is 0 as a matter of course, {-h, 0, +h}, is two planes of {0, 1}: h / 2 * alpha times the
difference of the integer parts over "x is above 0" and "x is below 0".

Of other values, x = p s + q and w = alpha[o] t + beta[o] with s and t of -1 and +1,

    sum(x w) = p alpha sum(s t) + p beta sum(s) + sum over the taps inside the image of q w

whose second sum is one more convolution, of which all weights are +1: its one output channel serves all of
the layer's, but for groups. The third depends on the taps that lie in the padding, see `bibench.border`.

An activation of a few values more is a sum of such, x = x_1 + x_2, and so is the layer's result: of 2 bits,
{0, 2d} + {0, d}.

A transposed convolution is several ordinary ones (`ir/transposed.py`), whose sums lie side by side.

A product of two activations is the same, with what the bits of {0, 1} want added at run time, see
`BinaryProduct`.

Requires: layers as `mark_layers` leaves them, channels last.
Ensures: every layer with two-valued operands is a binary operator with a halo of 0; no `bibench.named` or
`bibench.product` is left.
"""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from typing import TypeGuard

import numpy as np
import tvm
from tvm import relax

from relay_passes.ir.bound_values import BoundValues
from relay_passes.ir.layers import Layer
from relay_passes.ir.operators import (
    BinaryConvolution,
    BinaryProduct,
    Border,
    Contraction,
    Named,
    Pack,
    Phase,
    SignSums,
    Transposed,
    attributes_of,
    call,
    image,
)
from relay_passes.ir.rewrite import constant_value, is_call, is_constant, made_by, rewrite, shape_of
from relay_passes.ir.step_functions import Values
from relay_passes.ir.transfers.operands import fields
from relay_passes.ir.transposed import as_it_was, parts, shuffled
from relay_passes.ir.two_valued import (
    Plane,
    Planes,
    ThreeValued,
    TwoValued,
    few_values,
    moved_from,
    number,
    planes_of,
    steps_of,
    three_values,
    truth,
    two_values,
)
from relay_passes.ir.weights import BinaryWeights, TwoLevels, binary_weights, snapped
from relay_passes.kernels.stored_weights import bytes_in_bits, in_bits
from relay_passes.mark_layers import out_channels_first, why_not_in_parts
from schedules.geometry import Convolution
from schedules.parts.bits import Packing
from schedules.parts.borders import inside_sums
from schedules.targets import KernelTarget

Bits = TwoValued | ThreeValued | Planes

SIGN_NOTE = "sign(0) is 0 in the source network and +1 here; only an accident of floats is exactly 0 there"

STORED_NOTE = "its weights are two numbers of each output channel, and are stored in bits"

CONSTANT_NOTE = (
    "every element of its input is the same: what is compared is never negative, or never positive"
)


def find_binary(mod: tvm.IRModule, target: KernelTarget) -> tuple[tvm.IRModule, tuple[Layer, ...]]:
    """The module, and one `Layer` for each convolution, linear layer and matrix product, in order."""
    search = _Search(mod, target)
    return rewrite(mod, search.visit), tuple(search.table)


class _Search:
    """One walk over a network: the layers found so far, and what was packed for them."""

    def __init__(self, mod: tvm.IRModule, target: KernelTarget):
        self.target = target
        self.inputs = set(mod["main"].params)
        self.table: list[Layer] = []
        self.packed: dict[tuple, relax.Expr] = {}
        self.numbers = BoundValues()

    def visit(self, builder: relax.BlockBuilder, var: relax.Var, value: relax.Expr) -> relax.Expr:
        if is_call(value, "bibench.convolution", "bibench.matmul"):
            return self._binary(builder, value)
        if is_call(value, "bibench.transposed_convolution"):
            return self._transposed(builder, value)
        if is_call(value, "bibench.product"):
            return self._product(builder, value, shape_of(var))
        if is_call(value, "bibench.named"):
            inner = builder.lookup_binding(value.args[0])
            kind, weights = inner.op.name.removeprefix("relax.nn."), inner.args[1]
            if not is_constant(weights):
                reason = "its weights are computed at run time"
            elif "transpose" in kind and "3d" not in kind:
                found = self._activation(builder, inner.args[0]), binary_weights(out_channels_first(inner))
                reason = why_not_in_parts(inner) or "; ".join(r for r in found if isinstance(r, str))
            else:
                reason = f"{kind} has no binary kernel"
            # Each input element (transposed) or each output element (else) meets the weights of one channel.
            extents = shape_of(inner.args[0]) if "transpose" in kind else shape_of(value.args[0])
            macs = int(np.prod(extents)) * int(np.prod(shape_of(weights)[1:]))
            self._note(value, kind, reason, macs, weights)
            return value.args[0]
        return value

    def _note(
        self,
        value: relax.Call,
        op: str,
        reason: str,
        macs: int,
        weights: relax.Expr | None,
        geometry: Convolution | None = None,
    ) -> None:
        size = 4 * int(np.prod(shape_of(weights))) if weights is not None and is_constant(weights) else 0
        self.table.append(
            Layer(
                name=_name(value),
                op=op,
                binarized=False,
                reason=reason,
                macs=macs,
                weight_bytes=size,
                geometry=geometry,
            )
        )

    def _in_bits(self, value: relax.Call, weights: BinaryWeights, conv: Convolution) -> relax.Call:
        """A layer of wider activations, noted already: its weights are two numbers of each output channel, to
        the last bit, where they are nearly so, and the table says how they are stored."""
        taps = constant_value(value.args[1])
        numbers = snapped(taps, weights)
        stored = in_bits(numbers.reshape(conv.out_channels, *conv.kernel, -1), conv, self.target)
        layer = self.table.pop()
        if isinstance(stored, TwoLevels):
            notes = [STORED_NOTE, *_note_of_weights(weights)]
            layer = replace(layer, weight_bytes=bytes_in_bits(numbers), notes="; ".join(notes))
        elif stored:
            layer = replace(layer, notes=f"its weights are two numbers of each output channel, but {stored}")
        self.table.append(layer)
        if numbers is taps or not isinstance(stored, TwoLevels):
            return value
        return relax.Call(value.op, [value.args[0], relax.const(numbers)], value.attrs, value.ty_args)

    def _activation(self, builder: relax.BlockBuilder, x: relax.Expr, what: str = "its input") -> Bits | str:
        """The two values of an activation that a bit can stand for, or three, or a few, or the reason in
        words."""
        found = (
            two_values(builder, x, self.numbers)
            or three_values(builder, x, self.numbers)
            or planes_of(builder, x, self.numbers)
        )
        return found or f"{what} is {self._why_not(builder, x)}"

    def _why_not(self, builder: relax.BlockBuilder, x: relax.Expr) -> str:
        """What is in the way of two values, as the end of a sentence."""
        if (found := two_values(builder, x, self.numbers)) is not None:
            return f"two-valued, {found.low:g} and {found.high:g}"
        if isinstance(other := steps_of(builder, x, self.numbers), Values):
            by = made_by(builder, x).op.name.removeprefix("relax.")
            taken = [f"{value + 0.0:g}" for value in other.found[:4]]
            if len(taken) < 2:
                return f"not binary: it comes from {by}, and takes the value {taken[0]} alone"
            more = " and others" if len(other.found) > 4 else ""
            listed = f"{', '.join(taken[:-1])} and {taken[-1]}"
            return f"not binary: it comes from {by}, and takes the values {listed}{more}"
        made = made_by(builder, x)
        if (scaled := self._scaled_and_moved(builder, made)) is not None:
            return self._why_not(builder, scaled)
        if isinstance(made, relax.TupleGetItem) and moved_from(builder, made) is None:
            made = made_by(builder, made.tuple_value)
        name = made.op.name.removeprefix("relax.").removeprefix("nn.") if is_call(made) else "a constant"
        name = name.removeprefix("bibench.")
        if (source := moved_from(builder, made)) is not None:
            return self._why_not(builder, source)
        if x in self.inputs:
            return "the network's input, which is not binary"
        if is_call(made, "relax.nn.pad") and two_values(builder, made.args[0], self.numbers):
            value = float(made.attrs.pad_value)
            return f"not binary: it is padded with {value:g}, which is none of the two values of what it pads"
        if is_call(made, "relax.concat", "relax.stack"):
            parts = fields(builder, made.args[0])
            of_parts = [two_values(builder, part, self.numbers) for part in parts]
            if None in of_parts:
                one = self._why_not(builder, parts[of_parts.index(None)])
                return f"not binary: it comes from {name}, one part of which is {one}"
            pairs = dict.fromkeys(f"{v.low:g} and {v.high:g}" for v in of_parts if v)
            return f"not binary: it comes from concat, whose parts take different values: {'; '.join(pairs)}"
        return f"not binary: it comes from {name}, not from a sign"

    def _scaled_and_moved(self, builder: relax.BlockBuilder, made: relax.Expr) -> relax.Expr | None:
        """What was cast, or arithmetic with numbers was done to, where that is computed and is in the way."""
        arithmetic = "relax.add", "relax.subtract", "relax.multiply", "relax.divide", "relax.astype"
        if not is_call(made, *arithmetic):
            return None
        computed = [arg for arg in made.args if number(arg) is None]
        if len(computed) != 1 or computed[0] in self.inputs or not is_call(made_by(builder, computed[0])):
            return None
        few = few_values(builder, computed[0], self.numbers)
        return computed[0] if few is None else None

    def _pack(
        self,
        builder: relax.BlockBuilder,
        x: relax.Expr,
        values: TwoValued | ThreeValued,
        groups: int,
        word: int,
        plane: int = 0,
    ) -> relax.Expr:
        """plane: 0 for two values; of three values 1 for what is above 0, and -1 for what is below; see
        `Plane`."""
        key = (x, groups, word, plane)
        if key not in self.packed:
            planes = _planes(builder, x)
            channels = shape_of(x)[-1]
            source = x if planes is None else planes
            if isinstance(values, ThreeValued):
                bits = (values.above if plane > 0 else values.below)(source)
            elif isinstance(values, Plane):
                bits = values.bits(source)
                bits = builder.emit(relax.op.logical_not(bits)) if values.high == 0.0 else bits
            else:
                bits = self._bits(builder, source, values)
            pack = Pack(packing=Packing(channels, word, groups), planar=planes is not None)
            self.packed[key] = builder.emit(call("bibench.pack", bits, attributes=pack))
        return self.packed[key]

    def _bits(self, builder: relax.BlockBuilder, x: relax.Expr, values: TwoValued) -> relax.Expr:
        """Truths, where x has the higher of two values, or of 0 and another the other."""
        bits = truth(builder, x, values, self.numbers)
        return builder.emit(relax.op.logical_not(bits)) if values.high == 0.0 else bits

    def _binary(self, builder: relax.BlockBuilder, value: relax.Call) -> relax.Expr:
        x, w = value.args
        layer = attributes_of(value, Contraction)
        conv = layer.conv
        weights, values = binary_weights(constant_value(w)), self._activation(builder, x)
        reasons = [r for r in (values, weights) if isinstance(r, str)]
        if reasons or isinstance(weights, str) or isinstance(values, str):
            self._note(value, layer.op, "; ".join(reasons), conv.macs, w, conv)
            return value if isinstance(weights, str) else self._in_bits(value, weights, conv)
        word = self.target.word_for(conv)
        signs = np.where(weights.signs, np.int8(1), np.int8(-1)).reshape(conv.out_channels, *conv.kernel, -1)
        per_group = conv.channels // conv.groups
        stored = int(np.prod(conv.kernel)) * conv.out_channels * -(-per_group // 8)
        self._note_binary(builder, x, values, layer, conv.macs, stored, conv, weights)
        if _is_plain(values, weights):
            return self._scaled(builder, self._dot(builder, x, values, layer, signs, word), values, weights)
        result = builder.emit(self._of_parts(builder, x, values, layer, signs, weights, word))
        return self._as_known(builder, value, result)

    def _dot(
        self,
        builder: relax.BlockBuilder,
        x: relax.Expr,
        values: TwoValued | ThreeValued,
        layer: Contraction,
        signs: np.ndarray,
        word: int,
        phase: Phase | None = None,
        of_input: bool = False,
    ) -> relax.Expr:
        """The integer part of one convolution; phase, of_input: see `BinaryConvolution`."""
        conv = layer.conv

        def dot(plane: int) -> relax.Expr:
            words = self._pack(builder, x, values, conv.groups, word, plane)
            binary = BinaryConvolution(
                **vars(layer),
                packing=Packing(conv.channels, word, conv.groups),
                zero_one=_is_zero_one(values),
                plane=plane,
                part=(values.low, values.high) if isinstance(values, Plane) else None,
                phase=phase,
                levels=values.levels if isinstance(values, TwoValued) else None,
                of_input=of_input,
            )
            return builder.emit(
                call("bibench.binary_convolution", words, relax.const(signs), attributes=binary)
            )

        if isinstance(values, ThreeValued):
            return builder.emit(relax.op.subtract(dot(1), dot(-1)))
        return dot(values.index if isinstance(values, Plane) else 0)

    def _scaled(
        self,
        builder: relax.BlockBuilder,
        total: relax.Expr,
        values: TwoValued | ThreeValued,
        weights: BinaryWeights,
    ) -> relax.Expr:
        scale = (weights.alpha * _step(values)).astype(np.float32)
        result: relax.Expr = relax.op.astype(total, "float32")
        if (scale == 1).all():
            return result
        factor = scale[0] if (scale == scale[0]).all() else scale
        return relax.op.multiply(builder.emit(result), relax.const(factor))

    def _of_parts(
        self,
        builder: relax.BlockBuilder,
        x: relax.Expr,
        values: Bits,
        layer: Contraction,
        signs: np.ndarray,
        weights: BinaryWeights,
        word: int,
        phase: Phase | None = None,
    ) -> relax.Expr:
        """The layer's result in float32: the sum over the parts of its operand."""
        parts = values.parts if isinstance(values, Planes) else (values,)
        results = [self._shifted(builder, x, part, layer, signs, weights, word, phase) for part in parts]
        return reduce(lambda a, b: builder.emit(relax.op.add(a, b)), results)

    def _shifted(
        self,
        builder: relax.BlockBuilder,
        x: relax.Expr,
        values: TwoValued | ThreeValued,
        layer: Contraction,
        signs: np.ndarray,
        weights: BinaryWeights,
        word: int,
        phase: Phase | None = None,
    ) -> relax.Expr:
        """The layer's result in float32, of {low, high} and of weights alpha s + beta."""
        conv, op = layer.conv, relax.op
        alpha, step = weights.alpha.astype(np.float64), float(_step(values))
        beta = np.zeros_like(alpha) if weights.beta is None else weights.beta.astype(np.float64)

        def scaled(total: relax.Expr, scale: np.ndarray) -> relax.Expr:
            number = builder.emit(op.astype(total, "float32"))
            return builder.emit(op.multiply(number, relax.const(scale.astype(np.float32))))

        result = scaled(self._dot(builder, x, values, layer, signs, word, phase), step * alpha)
        if beta.any():
            channels = 1 if conv.groups == 1 else conv.out_channels
            summing = replace(layer, conv=replace(conv, out_channels=channels))
            ones = np.ones((channels, *signs.shape[1:]), np.int8)
            total = self._dot(builder, x, values, summing, ones, word, phase, of_input=True)
            result = builder.emit(op.add(result, scaled(total, step * beta)))
        if isinstance(values, TwoValued) and values.levels:
            middle = (values.low + values.high) / 2
            whole = signs * alpha[:, None, None, None] + beta[:, None, None, None]
            table, *classes = inside_sums(conv, middle * whole)
            if table[..., 0].size == 1:
                moved: relax.Expr = relax.const(table[0, 0].astype(np.float32))
            else:
                constants = [relax.const(c) for c in (table.astype(np.float32), *classes)]
                moved = builder.emit(call("bibench.border", *constants, attributes=Border()))
            result = builder.emit(op.add(result, moved))
        return result

    def _as_known(self, builder: relax.BlockBuilder, value: relax.Call, result: relax.Var) -> relax.Var:
        """`result`, of which is known what the source's own operator says of its numbers."""
        self.numbers.know(result, self.numbers.of(builder, builder.emit(value)))
        return result

    def _note_binary(
        self,
        builder: relax.BlockBuilder,
        x: relax.Expr,
        values: Bits,
        layer: Contraction | Transposed,
        macs: int,
        stored: int,
        conv: Convolution | None,
        weights: BinaryWeights,
    ) -> None:
        """stored: bytes of the weights for one plane of bits."""
        operand = self.numbers.of(builder, x)
        if isinstance(values, ThreeValued):
            notes = [f"the sign before it has three values, in two planes of bits: {values.cause} is often 0"]
        elif isinstance(values, Planes):
            taken = ", ".join(f"{value:.3g}" for value in values.values)
            notes = [f"its input has the values {taken}, in {len(values.parts)} planes of bits"]
        elif (operand.low == operand.high).all():
            notes = [CONSTANT_NOTE]
        else:
            notes = [SIGN_NOTE] if values.accident else []
        notes += _notes_of_rounding(values)
        notes += _note_of_weights(weights)
        self.table.append(
            Layer(
                name=layer.name,
                op=layer.op,
                binarized=True,
                macs=macs,
                weight_bytes=stored * _planes_in(values),
                notes="; ".join(notes),
                geometry=conv,
                dtype="binary",
            )
        )

    def _transposed(self, builder: relax.BlockBuilder, value: relax.Call) -> relax.Expr:
        x, w = value.args
        layer = attributes_of(value, Transposed)
        taps = constant_value(w)
        macs = layer.batch * layer.height * layer.width * int(np.prod(taps.shape))
        weights, values = binary_weights(taps), self._activation(builder, x)
        if isinstance(weights, str) or isinstance(values, str):
            self._note(
                value, layer.op, "; ".join(r for r in (values, weights) if isinstance(r, str)), macs, w
            )
            return as_it_was(builder, x, taps, layer)
        signs = np.where(weights.signs, np.int8(1), np.int8(-1))
        whole = Convolution(
            layer.batch, layer.height, layer.width, layer.channels, layer.out_channels, layer.kernel
        )
        word = self.target.word_for(whole)
        sums: list[relax.Expr | None] = []
        for part in parts(layer):
            if part.conv is None:
                sums.append(None)
                continue
            own = Contraction(name=layer.name, op=layer.op, conv=part.conv)
            rows, columns = part.taps
            chosen = np.ascontiguousarray(signs[:, rows, columns])
            if _is_plain(values, weights):
                sums.append(self._dot(builder, x, values, own, chosen, word, part.phase))
            else:
                sums.append(self._of_parts(builder, x, values, own, chosen, weights, word, part.phase))
        stored = int(np.prod(layer.kernel)) * layer.out_channels * -(-layer.channels // 8)
        self._note_binary(builder, x, values, layer, macs, stored, None, weights)
        whole_image = shuffled(builder, layer, sums)
        if _is_plain(values, weights):
            return self._scaled(builder, whole_image, values, weights)
        return self._as_known(builder, value, whole_image)

    def _product(self, builder: relax.BlockBuilder, value: relax.Call, shape: tuple[int, ...]) -> relax.Expr:
        x, y = value.args
        plain = relax.op.matmul(x, y)
        macs = int(np.prod(shape)) * shape_of(x)[-1]
        left, right = self._activation(builder, x), self._activation(builder, y, "its second operand")
        reason = "; ".join(r for r in (left, right) if isinstance(r, str))
        for what, side in (("its input", left), ("its second operand", right)):
            if not reason and isinstance(side, TwoValued) and side.levels:
                taken = f"{what} takes the values {side.low:g} and {side.high:g}"
                reason = f"{taken}; a product of two activations has a kernel for -a and a, or 0 and a"
        if not reason and not (isinstance(left, TwoValued) and isinstance(right, TwoValued)):
            reason = "a product of two activations has a kernel for two values only, not for three or more"
        if not reason and (len(shape) > 4 or shape_of(x)[:-2] != shape_of(y)[:-2]):
            reason = "a binary product of activations needs equal leading extents on both sides, two at most"
        if reason or not isinstance(left, TwoValued) or not isinstance(right, TwoValued):
            self._note(value, "matmul", reason, macs, None)
            return plain
        rank, depth = len(shape), shape_of(x)[-1]
        outer, inner, rows, columns = image(shape)
        conv = Convolution(outer, inner, rows, depth, columns)
        word = self.target.word_for(Convolution(1, 1, rows, depth, columns))
        packing = Packing(depth, word)
        a = self._pack(builder, x, left, 1, word)
        bits = relax.op.permute_dims(self._bits(builder, y, right), [*range(rank - 2), rank - 1, rank - 2])
        b = builder.emit(call("bibench.pack", builder.emit(bits), attributes=Pack(packing=packing)))
        zero_one = left.low != -left.high, right.low != -right.high
        sums = []
        for other, of_zero_one, extents in ((b, zero_one[0], (1, columns)), (a, zero_one[1], (rows, 1))):
            if of_zero_one:
                counted = call("bibench.sign_sums", other, attributes=SignSums(packing=packing))
                placed = relax.op.reshape(builder.emit(counted), (*shape[:-2], *extents))
                sums.append(builder.emit(placed))
        layer = BinaryProduct(
            name=_name(value), op="matmul", conv=conv, rank=rank, packing=packing, zero_one=zero_one
        )
        dot = call("bibench.binary_product", a, b, *sums, attributes=layer)
        scale = np.float32(1)
        for values in (left, right):
            scale *= np.float32(values.high or values.low)
        scale *= np.float32(0.5) ** np.float32(sum(zero_one))
        result = relax.op.astype(builder.emit(dot), "float32")
        notes = [SIGN_NOTE] if left.accident or right.accident else []
        notes += _notes_of_rounding(left) + _notes_of_rounding(right)
        self.table.append(
            Layer(
                name=layer.name,
                op=layer.op,
                binarized=True,
                macs=macs,
                weight_bytes=0,
                notes="; ".join(dict.fromkeys(notes)),
                dtype="binary",
            )
        )
        return result if scale == 1 else relax.op.multiply(builder.emit(result), relax.const(scale))


def _notes_of_rounding(values: Bits) -> list[str]:
    if values.moved is None:
        return []
    if isinstance(values, Planes):
        far = f"{values.moved:.2g} at most as seen from -16 to 16"
        return [f"rounding in the source moves these values by {far}"]
    height = values.height if isinstance(values, ThreeValued) else max(abs(values.low), abs(values.high))
    taken = f"{height:g} and {-height:g}"
    if isinstance(values, TwoValued):
        taken = f"{values.low:g} and {values.high:g}"
    far = f"{values.moved:.2g} at most as seen from -16 to 16"
    return [f"its input is {taken} but for rounding in the source, which moves it by {far}"]


def _note_of_weights(weights: BinaryWeights) -> list[str]:
    if not weights.moved:
        return []
    return [f"rounding in the source moves its weights from +-alpha, by {weights.moved:.2g} of alpha at most"]


def _is_zero_one(values: TwoValued | ThreeValued) -> bool:
    """Whether bits stand for 0 and 1, so that sums are kept doubled."""
    return isinstance(values, ThreeValued) or 0.0 in (values.low, values.high)


def _is_plain(values: Bits, weights: BinaryWeights) -> TypeGuard[TwoValued | ThreeValued]:
    """Whether a layer's result is a multiple of its integers."""
    if isinstance(values, Planes):
        return False
    return weights.beta is None and (isinstance(values, ThreeValued) or values.levels is None)


def _planes_in(values: Bits) -> int:
    return len(values.parts) if isinstance(values, Planes) else 2 if isinstance(values, ThreeValued) else 1


def _step(values: TwoValued | ThreeValued) -> np.float32:
    """What an integer of 1 is in the activations: half of the way from the lower to the higher, as sums over
    {0, 1} are kept doubled; below 0 for {l, 0}, whose bits say "l"."""
    if isinstance(values, TwoValued) and values.levels:
        return np.float32((values.high - values.low) / 2)
    height = values.height if isinstance(values, ThreeValued) else values.high or values.low
    return np.float32(height) * np.float32(0.5 if _is_zero_one(values) else 1)


def _name(value: relax.Call) -> str:
    return attributes_of(value, Named).name


def _planes(builder: relax.BlockBuilder, x: relax.Expr) -> relax.Expr | None:
    """The tensor [N, C, H, W], or [N, C, L], that was turned to the image x, if that is how x was made."""
    made = made_by(builder, x)
    if len(shape_of(x)) not in (3, 4) or not is_call(made, "relax.permute_dims"):
        return None
    source = made.args[0]
    turned = [0, *range(2, len(shape_of(source))), 1]
    return source if [int(axis) for axis in made.attrs.axes or ()] == turned else None
