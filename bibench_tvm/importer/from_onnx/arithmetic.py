"""Repairs of ONNX's arithmetic. See `repairs.py`."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from tvm import relax

from bibench_tvm.importer.from_onnx.expressions import constant, dtype_of, number_of, shape_of
from bibench_tvm.importer.operators import log1p, of_truths


def power(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr:
    """The result is of the type of the base; TVM wants the exponent to be of it too."""
    base, exponent = inputs
    if not any("float" in operand.ty.dtype.dtype for operand in inputs):
        number = number_of(exponent)
        if number is None or not 1 <= number <= 16:
            raise NotImplementedError("a power of integers has to have a constant exponent from 1 to 16.")
        return functools.reduce(relax.op.multiply, [base] * int(number))
    kinds = [operand.ty.dtype.dtype for operand in inputs]
    wide = next((kind for kind in kinds if "float" in kind), kinds[0])
    base, exponent = (
        x if k == wide else relax.op.astype(x, wide) for x, k in zip(inputs, kinds, strict=True)
    )
    made = relax.op.power(base, exponent)
    return made if wide == kinds[0] else relax.op.astype(made, kinds[0])


def scaled_product(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr | None:
    """Gemm, whose alpha TVM multiplies into the first operand: alpha A B + beta C."""
    if attrs.get("alpha", 1.0) == 1:
        return None
    left, right, bias = (*inputs, None)[:3]
    dtype = dtype_of(left)
    left = relax.op.permute_dims(left) if attrs.get("transA", 0) else left
    right = relax.op.permute_dims(right) if attrs.get("transB", 0) else right
    product = relax.op.multiply(relax.op.matmul(left, right), relax.const(attrs["alpha"], dtype))
    if bias is None:
        return product
    return relax.op.add(product, relax.op.multiply(bias, relax.const(attrs.get("beta", 1.0), dtype)))


def is_inf(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr:
    found = [
        relax.op.equal(inputs[0], relax.const(np.float32(value)))
        for name, value in (("detect_negative", -np.inf), ("detect_positive", np.inf))
        if attrs.get(name, 1)
    ]
    if not found:
        return relax.op.zeros(shape_of(inputs[0]), "bool")
    return functools.reduce(relax.op.logical_or, found)


def mod(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr | None:
    if attrs.get("fmod", 0) or "float" not in dtype_of(inputs[0]):
        return None
    x, y = inputs
    zero = relax.const(np.float32(0))
    rest = relax.op.mod(x, y)
    turned = relax.op.less(relax.op.multiply(relax.op.sign(rest), relax.op.sign(y)), zero)
    return relax.op.where(turned, relax.op.add(rest, y), rest)


def bit_shift(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr:
    x, by = inputs
    kind = dtype_of(x)
    bits = int(kind.lstrip("uint"))
    left = attrs["direction"] == b"LEFT"
    if not (left or kind.startswith("u")):
        raise NotImplementedError("a shift of signed integers to the right.")
    high = relax.const(bits - 1, kind)
    inside = relax.op.less_equal(by, high)
    if not kind.startswith("u"):
        inside = relax.op.logical_and(inside, relax.op.greater_equal(by, relax.const(0, kind)))
    safe = relax.op.where(inside, by, relax.const(0, kind))
    shifted = relax.op.left_shift(x, safe) if left else relax.op.right_shift(x, safe)
    return relax.op.where(inside, shifted, relax.const(0, kind))


def extreme_truth(inputs: list[Any], attrs: dict[str, Any], opset: int, reduce: Any) -> relax.Expr | None:
    """TVM has no least and no greatest truth."""
    x = inputs[0]
    if dtype_of(x) != "bool":
        return None
    axes = attrs.get("axes", constant(inputs[1], "axes") if len(inputs) > 1 and inputs[1] is not None else ())
    if not len(axes) and attrs.get("noop_with_empty_axes", 0):
        return x
    made = reduce(relax.op.astype(x, "uint8"), [int(a) for a in axes] or None, bool(attrs.get("keepdims", 1)))
    return relax.op.astype(made, "bool")


def between_truths(inputs: list[Any], attrs: dict[str, Any], opset: int, name: str) -> relax.Expr | None:
    a, b = inputs
    return of_truths(name, a, b) if dtype_of(a) == dtype_of(b) == "bool" else None


def mish(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr:
    """x tanh(log(1 + e^x)) without the logarithm, which loses the digits of small numbers."""
    x = inputs[0]
    power = relax.op.exp(relax.op.minimum(x, relax.const(np.float32(20))))
    part = relax.op.multiply(power, relax.op.add(power, relax.const(np.float32(2))))
    return relax.op.multiply(x, relax.op.divide(part, relax.op.add(part, relax.const(np.float32(2)))))


def softplus(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr:
    x = inputs[0]
    small = log1p(relax.op.exp(relax.op.negative(relax.op.abs(x))))
    return relax.op.add(relax.op.maximum(x, relax.const(np.float32(0))), small)


def integer_product(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr | None:
    """Of bytes, in float32 where that holds the sums exactly: our kernels of products are of floats."""
    a, b, *zeros = inputs
    if shape_of(a)[-1] > 256:  # 256 * 255 * 255 < 2 ** 24
        return None
    operands = []
    for x, zero, is_left in zip((a, b), (*zeros, None, None), (True, False), strict=False):
        value = relax.op.astype(x, "float32")
        if zero is not None:
            moved = relax.op.astype(zero, "float32")
            if is_left and len(shape_of(zero)) == 1 and shape_of(zero)[0] > 1:  # one for each row
                moved = relax.op.expand_dims(moved, -1)
            value = relax.op.subtract(value, moved)
        operands.append(value)
    return relax.op.astype(relax.op.matmul(*operands), "int32")
