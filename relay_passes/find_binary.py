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
{0, 2d} + {0, d}. Likewise weights, w = w_1 + w_2: a sum for each pair of an x_i and a w_j.

A transposed convolution is several ordinary ones (`ir/transposed.py`), whose sums lie side by side.

A product of two activations is the same, with what the bits of {0, 1} want added at run time, see
`BinaryProduct`.

Requires: layers as `mark_layers` leaves them, channels last.
Ensures: every layer with two-valued operands is a binary operator with a halo of 0; no `bibench.named` or
`bibench.product` is left.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import tvm
from tvm import relax

from relay_passes.ir.activations import Bits, bits_of, planes_in
from relay_passes.ir.binary_sums import BinarySums, is_plain
from relay_passes.ir.bound_values import BoundValues
from relay_passes.ir.layers import Layer
from relay_passes.ir.notes import (
    CONSTANT_NOTE,
    SIGN_NOTE,
    STORED_NOTE,
    notes_of_rounding,
    notes_of_weights,
)
from relay_passes.ir.operators import (
    BinaryProduct,
    Contraction,
    Named,
    Pack,
    Product,
    SignSums,
    Transposed,
    attributes_of,
    call,
    image,
)
from relay_passes.ir.permutations import permuted_at_once
from relay_passes.ir.planes import Planes
from relay_passes.ir.rewrite import constant_value, dtype_of, is_call, is_constant, rewrite, shape_of
from relay_passes.ir.three_valued import ThreeValued
from relay_passes.ir.transposed import as_it_was, parts, shuffled
from relay_passes.ir.two_valued import TwoValued
from relay_passes.ir.weight_planes import WeightPlanes, weight_planes
from relay_passes.ir.weights import BinaryWeights, TwoLevels, binary_weights, snapped
from relay_passes.ir.why_float import why_not
from relay_passes.kernels.stored_weights import bytes_in_bits, in_bits
from relay_passes.mark_layers import out_channels_first, why_not_in_parts
from schedules.geometry import Convolution
from schedules.parts.bits import Packing
from schedules.targets import KernelTarget

MOST_SUMS = 9
"""Of bits, that are added for one layer: on a Cortex-A72 one takes a tenth of what one of bytes takes."""


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
        self.numbers = BoundValues()
        self.sums = BinarySums(self.numbers)

    def visit(self, builder: relax.BlockBuilder, var: relax.Var, value: relax.Expr) -> relax.Expr:
        if is_call(value, "bibench.convolution", "bibench.matmul"):
            return self._binary(builder, value)
        if is_call(value, "bibench.transposed_convolution"):
            return self._transposed(builder, value)
        if is_call(value, "bibench.product"):
            return self._product(builder, value, shape_of(var))
        if is_call(value, "bibench.named"):
            inner = builder.lookup_binding(value.args[0])
            kind, weights = inner.op.name.removeprefix("relax.").removeprefix("nn."), inner.args[1]
            if kind == "matmul":
                vector = "a product with a vector has no binary kernel"
                reason = vector if dtype_of(inner) == "float32" else "it multiplies integers, which stay so"
                macs = int(np.prod(shape_of(value.args[0]))) * shape_of(inner.args[0])[-1]
                self._note(value, kind, reason, macs, next(filter(is_constant, inner.args), None))
                return value.args[0]
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
            notes = [STORED_NOTE, *notes_of_weights(weights)]
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
        found = bits_of(builder, x, self.numbers)
        return found or f"{what} is {why_not(builder, x, self.numbers, self.inputs)}"

    def _operands(
        self, builder: relax.BlockBuilder, x: relax.Expr, taps: np.ndarray
    ) -> tuple[Bits | str, BinaryWeights | WeightPlanes | str]:
        """The values of both sides of a layer, or why they are not computed in bits; taps: [O, ...]."""
        weights: BinaryWeights | WeightPlanes | str = binary_weights(taps)
        values = self._activation(builder, x)
        if isinstance(weights, str) and not isinstance(values, str):
            weights = _as_planes(taps, values) or weights
        return values, weights

    def _binary(self, builder: relax.BlockBuilder, value: relax.Call) -> relax.Expr:
        x, w = value.args
        layer = attributes_of(value, Contraction)
        conv = layer.conv
        values, weights = self._operands(builder, x, constant_value(w))
        reasons = [r for r in (values, weights) if isinstance(r, str)]
        if reasons or isinstance(weights, str) or isinstance(values, str):
            self._note(value, layer.op, "; ".join(reasons), conv.macs, w, conv)
            return self._in_bits(value, weights, conv) if isinstance(weights, BinaryWeights) else value
        word = self.target.word_for(conv)
        shape = conv.out_channels, *conv.kernel, -1
        signed = [(_signs(plane).reshape(shape), plane) for plane in _planes_of(weights)]
        per_group = conv.channels // conv.groups
        stored = int(np.prod(conv.kernel)) * conv.out_channels * -(-per_group // 8)
        self._note_binary(builder, x, values, layer, conv.macs, stored, conv, weights)
        if isinstance(weights, BinaryWeights) and is_plain(values, weights):
            total = self.sums.dot(builder, x, values, layer, signed[0][0], word)
            return self.sums.scaled(builder, total, values, weights)
        result = builder.emit(self.sums.of_parts(builder, x, values, layer, signed, word))
        return self._as_known(builder, value, result)

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
        weights: BinaryWeights | WeightPlanes,
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
        notes += notes_of_rounding(values)
        notes += notes_of_weights(weights)
        self.table.append(
            Layer(
                name=layer.name,
                op=layer.op,
                binarized=True,
                macs=macs,
                weight_bytes=stored * planes_in(values) * len(_planes_of(weights)),
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
        values, weights = self._operands(builder, x, taps)
        if isinstance(weights, str) or isinstance(values, str):
            self._note(
                value, layer.op, "; ".join(r for r in (values, weights) if isinstance(r, str)), macs, w
            )
            return as_it_was(builder, x, taps, layer)
        signed = [(_signs(plane), plane) for plane in _planes_of(weights)]
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
            chosen = [(np.ascontiguousarray(signs[:, rows, columns]), plane) for signs, plane in signed]
            if isinstance(weights, BinaryWeights) and is_plain(values, weights):
                sums.append(self.sums.dot(builder, x, values, own, chosen[0][0], word, part.phase))
            else:
                sums.append(self.sums.of_parts(builder, x, values, own, chosen, word, part.phase))
        stored = int(np.prod(layer.kernel)) * layer.out_channels * -(-layer.channels // 8)
        self._note_binary(builder, x, values, layer, macs, stored, None, weights)
        whole_image = shuffled(builder, layer, sums)
        if isinstance(weights, BinaryWeights) and is_plain(values, weights):
            return self.sums.scaled(builder, whole_image, values, weights)
        return self._as_known(builder, value, whole_image)

    def _product(self, builder: relax.BlockBuilder, value: relax.Call, shape: tuple[int, ...]) -> relax.Expr:
        x, y = value.args
        plain = relax.op.matmul(x, y)
        if constants := [arg for arg in (x, y) if is_constant(arg)]:
            reason = "one of its operands is a batch of constant matrices, which has no binary kernel"
            macs = int(np.prod(shape)) * shape_of(x)[-1]
            self._note(value, "matmul", reason, macs, constants[0])
            return plain
        macs = int(np.prod(shape)) * shape_of(x)[-1]
        turned = attributes_of(value, Product).turned
        first, second = ("its second operand", "its input") if turned else ("its input", "its second operand")
        left, right = self._activation(builder, x, first), self._activation(builder, y, second)
        reason = "; ".join(r for r in (left, right) if isinstance(r, str))
        for what, side in ((first, left), (second, right)):
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
        a = self.sums.pack(builder, x, left, 1, word)
        axes = [*range(rank - 2), rank - 1, rank - 2]
        bits = permuted_at_once(builder, self.sums.bits(builder, y, right), axes)
        b = builder.emit(call("bibench.pack", bits, attributes=Pack(packing=packing)))
        zero_one = left.low != -left.high, right.low != -right.high
        sums = []
        for other, of_zero_one, extents in ((b, zero_one[0], (1, columns)), (a, zero_one[1], (rows, 1))):
            if of_zero_one:
                counted = call("bibench.sign_sums", other, attributes=SignSums(packing=packing))
                placed = relax.op.reshape(builder.emit(counted), (*shape[:-2], *extents))
                sums.append(builder.emit(placed))
        layer = BinaryProduct(
            name=_name(value),
            op="matmul",
            conv=conv,
            rank=rank,
            packing=packing,
            zero_one=zero_one,
            turned=turned,
        )
        dot = call("bibench.binary_product", a, b, *sums, attributes=layer)
        scale = np.float32(1)
        for values in (left, right):
            scale *= np.float32(values.high or values.low)
        scale *= np.float32(0.5) ** np.float32(sum(zero_one))
        result = relax.op.astype(builder.emit(dot), "float32")
        notes = [SIGN_NOTE] if left.accident or right.accident else []
        notes += notes_of_rounding(left) + notes_of_rounding(right)
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


def _as_planes(weights: np.ndarray, values: Bits) -> WeightPlanes | str | None:
    """Weights that are sums of signs, or why they are not computed so; None where they are not such sums."""
    found = weight_planes(weights)
    if found is None or (sums := planes_in(values) * len(found.planes)) <= MOST_SUMS:
        return found
    parts = f"its weights are sums of {len(found.planes)} signs, and its input of {planes_in(values)}"
    return f"{parts}: {sums} sums of bits, and more than {MOST_SUMS} take as long as one of bytes"


def _planes_of(weights: BinaryWeights | WeightPlanes) -> tuple[BinaryWeights, ...]:
    return weights.planes if isinstance(weights, WeightPlanes) else (weights,)


def _signs(weights: BinaryWeights) -> np.ndarray:
    return np.where(weights.signs, np.int8(1), np.int8(-1))


def _name(value: relax.Call) -> str:
    return attributes_of(value, Named).name
