"""Repairs of TVM's converters of ONNX operators, and what of them is refused.

A repair takes the operands (None where one is left out), the attributes and the opset. It returns an
expression or a tuple of them, or None where TVM's own converter is right. Its errors say what is not taken.

The table at the end has the reason of each: what TVM 0.27 makes of the operator. tests/bibench_tvm/importer/
from_onnx/test_repairs.py tries TVM's own, and fails where that has become right, so that the repair can go.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import relax

from bibench_tvm.importer.from_onnx.arithmetic import (
    between_truths,
    bit_shift,
    extreme_truth,
    integer_product,
    is_inf,
    mish,
    mod,
    power,
    scaled_product,
    softplus,
)
from bibench_tvm.importer.from_onnx.expressions import Repair, constant, dtype_of, number_of, shape_of
from bibench_tvm.importer.from_onnx.normalization import batch_norm, dropout, layer_norm, rms_norm
from bibench_tvm.importer.from_onnx.resize import resize
from bibench_tvm.importer.indices import scatter
from bibench_tvm.importer.operators import elu, hyperbolic


def _clip(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr:
    x, low, high = (*inputs, None, None)[:3]
    dtype = x.ty.dtype.dtype
    # Until opset 10 the bounds were attributes.
    low = relax.const(attrs["min"], dtype) if "min" in attrs else low
    high = relax.const(attrs["max"], dtype) if "max" in attrs else high
    below, above = number_of(low), number_of(high)
    if below is not None and above is not None and below <= above:  # false for NaN as well
        return relax.op.clip(x, below, above)
    # A NaN bound is no bound, and where the lower one exceeds the upper one, the upper one wins.
    if low is not None and not (below is not None and np.isnan(below)):
        x = relax.op.maximum(x, low)
    if high is not None and not (above is not None and np.isnan(above)):
        x = relax.op.minimum(x, high)
    return x


def _pad(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr:
    x, pads, value, axes = (*inputs, None, None, None)[:4]
    # Until opset 10 pads and value were attributes.
    widths = np.array(attrs["pads"]) if "pads" in attrs else constant(pads, "pads")
    rank = x.ty.ndim
    axes = range(rank) if axes is None else [int(axis) % rank for axis in constant(axes, "axes")]
    pairs = np.zeros((rank, 2), dtype=int)
    pairs[list(axes)] = widths.reshape(2, -1).T
    mode = attrs.get("mode", b"constant").decode()
    fill = attrs.get("value", 0.0) if value is None else number_of(value)
    if fill is None:
        raise NotImplementedError("the value of Pad is not a constant.")
    relax_mode = {"edge": "replicate", "wrap": "circular"}.get(mode, mode)
    return relax.op.nn.pad(x, [int(width) for width in pairs.ravel()], relax_mode, fill)


def _tile(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr:
    return relax.op.tile(inputs[0], [int(repeat) for repeat in constant(inputs[1], "repeats")])


def _one_hot(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr:
    indices, depth, values = inputs
    count, rank = int(constant(depth, "the depth of OneHot").item()), indices.ty.ndim + 1
    axis = attrs.get("axis", -1) % rank
    places = np.arange(count).reshape([count if i == axis else 1 for i in range(rank)])
    indices = relax.op.astype(indices, "int64")
    end, zero = relax.const(count, "int64"), relax.const(0, "int64")
    indices = relax.op.where(relax.op.less(indices, zero), relax.op.add(indices, end), indices)
    off, on = (relax.op.take(values, relax.const(i, "int64"), axis=0) for i in (0, 1))
    hit = relax.op.equal(relax.op.expand_dims(indices, axis), relax.const(places, "int64"))
    return relax.op.where(hit, on, off)


def _mean_of_integers(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr | None:
    x, given = (*inputs, None)[:2]
    dtype = dtype_of(x)
    if "int" not in dtype:
        return None
    listed = attrs.get("axes", ()) if given is None else constant(given, "axes")
    axes = [int(axis) % x.ty.ndim for axis in listed]
    if not axes and attrs.get("noop_with_empty_axes", 0):
        return x
    total = relax.op.sum(x, axes or None, keepdims=bool(attrs.get("keepdims", 1)))
    count = int(np.prod([shape_of(x)[axis] for axis in axes or range(x.ty.ndim)]))
    return relax.op.astype(relax.op.divide(total, relax.const(count, dtype)), dtype)


def _sign(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr | None:
    dtype = dtype_of(inputs[0])
    return relax.op.minimum(inputs[0], relax.const(1, dtype)) if dtype.startswith("uint") else None


def _pairwise(relax_op: Callable[[relax.Expr, relax.Expr], relax.Expr]) -> Repair:
    return lambda inputs, attrs, opset: functools.reduce(relax_op, inputs)


def _space_to_depth(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr:
    n, c, h, w = shape_of(inputs[0])
    block = attrs["blocksize"]
    blocks = relax.op.reshape(inputs[0], (n, c, h // block, block, w // block, block))
    channels_last = attrs.get("mode", b"DCR") == b"DCR"
    turned = relax.op.permute_dims(blocks, [0, 3, 5, 1, 2, 4] if channels_last else [0, 1, 3, 5, 2, 4])
    return relax.op.reshape(turned, (n, c * block * block, h // block, w // block))


def _roi_align(inputs: list[Any], attrs: dict[str, Any], opset: int) -> None:
    if attrs.get("mode", b"avg") != b"avg":
        raise NotImplementedError("mode='max'.")
    half = attrs.get("coordinate_transformation_mode", b"half_pixel" if opset >= 16 else b"output_half_pixel")
    if half == b"half_pixel" and attrs.get("spatial_scale", 1.0) != 1:
        raise NotImplementedError("half_pixel together with a spatial_scale.")  # TVM shifts before it scales


def _split(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr | None:
    """Without the parts that have no elements, which nothing reads."""
    x, sizes = (*inputs, None)[:2]
    widths = np.array(attrs.get("split", ())) if sizes is None else constant(sizes, "split")
    if 0 not in widths:
        return None
    ends = np.cumsum(widths)
    parts = [
        relax.op.strided_slice(x, [attrs.get("axis", 0)], [end - width], [end])
        if width
        else relax.const(np.float32(0))
        for width, end in zip(widths.tolist(), ends.tolist(), strict=True)
    ]
    return relax.Tuple(parts) if len(parts) > 1 else parts[0]


def _scatter_elements(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr:
    reduction = {"none": "update"}.get(kind := attrs.get("reduction", b"none").decode(), kind)
    data, indices, updates = inputs
    return scatter(data, indices, updates, attrs.get("axis", 0), reduction)


def _lp_pool(inputs: list[Any], attrs: dict[str, Any], opset: int) -> None:
    if attrs.get("ceil_mode", 0):
        raise NotImplementedError("ceil_mode=1.")


def _refused(reason: str) -> Repair:
    def refuse(inputs: list[Any], attrs: dict[str, Any], opset: int) -> None:
        raise NotImplementedError(reason)

    return refuse


_OF_TRUTHS = {
    "Equal": "equal", "Add": "add", "Mul": "multiply", "Greater": "greater", "Less": "less",
    "GreaterOrEqual": "greater_equal", "LessOrEqual": "less_equal",
}  # fmt: skip

REPAIRS: dict[str, Repair] = {
    # Right, but a loop nest, in which no pass of ours sees a hardtanh or a padding.
    "Clip": _clip,
    "Pad": _pad,
    "Tile": _tile,
    # Right, but the operands are stacked in memory, and the stack is reduced.
    "Max": _pairwise(relax.op.maximum),
    "Min": _pairwise(relax.op.minimum),
    "Sum": _pairwise(relax.op.add),
    # The base and the exponent have to be of one type, and none of integers.
    "Pow": power,
    # Only the last axes of three to five, with neither `antialias` nor `axes`, by a scale that is made of the
    # rounded sizes, and not to one element; Upsample only with scales as an attribute.
    "Resize": resize,
    "Upsample": resize,
    # `detect_negative` and `detect_positive` are ignored.
    "IsInf": is_inf,
    # `mode` is ignored: the channels of CRD are in the order of DCR.
    "SpaceToDepth": _space_to_depth,
    # The mask is of floats, and `training_mode` is ignored.
    "Dropout": dropout,
    # Right; but a network in training mode depends on its batch, and is not what somebody deploys.
    "BatchNormalization": batch_norm,
    # A scale that is broadcast is refused; the mean and the deviation are 0; over all axes there is no code.
    "LayerNormalization": layer_norm,
    "RMSNormalization": rms_norm,
    # `max` is another one than ONNX's; half_pixel is shifted before it is scaled.
    "RoiAlign": _roi_align,
    # A rest by infinity is NaN.
    "Mod": mod,
    # A shift by all bits or more is what the processor makes of it.
    "BitShift": bit_shift,
    # There is no least and no greatest truth.
    "ReduceMax": functools.partial(extreme_truth, reduce=relax.op.max),
    "ReduceMin": functools.partial(extreme_truth, reduce=relax.op.min),
    # LLVM refuses the code for an equality of truths. The others ONNX has not of truths; PyTorch writes them.
    **{name: functools.partial(between_truths, name=of_relax) for name, of_relax in _OF_TRUTHS.items()},
    # Small numbers below 0 become 0.
    "Elu": lambda inputs, attrs, opset: elu(inputs[0], attrs.get("alpha", 1.0)),
    "Selu": lambda inputs, attrs, opset: elu(
        inputs[0],
        attrs.get("alpha", 1.67326319217681884765625),
        attrs.get("gamma", 1.05070102214813232421875),
    ),
    # A part without elements is refused.
    "Split": _split,
    # Values of floats become float64.
    "OneHot": _one_hot,
    # Of integers it is one of 64 bits, said to be of theirs.
    "ReduceMean": _mean_of_integers,
    # Of unsigned integers there is none, since -1 is none.
    "Sign": _sign,
    # log(1 + e^x) loses the digits of small e^x.
    "Mish": mish,
    "Softplus": softplus,
    # The code generator has no sinh and cosh of vectors, which our schedules make.
    "Sinh": lambda inputs, attrs, opset: hyperbolic(inputs[0], sine=True),
    "Cosh": lambda inputs, attrs, opset: hyperbolic(inputs[0], sine=False),
    # Right, but by an operator for which we have no schedule; Scatter crashes for a part of the rows.
    "ScatterElements": _scatter_elements,
    "Scatter": _scatter_elements,
    "MaxUnpool": _refused("it puts values where the input says."),
    # Right as ONNX's own reference has it; but runtimes differ in the window that hangs over the edge.
    "LpPool": _lp_pool,
    # Right, but the layer reads other numbers than the source's: alpha times them.
    "Gemm": scaled_product,
    # Right, but a product of int32, of which our kernels are not.
    "MatMulInteger": integer_product,
    # An output whose shape depends on the values of the input.
    "NonMaxSuppression": _refused(
        "how many boxes it keeps depends on the values of the input; do that behind it."
    ),
    "ConstantOfShape": _refused("its shape is computed from the input; it has to be a constant."),
}
