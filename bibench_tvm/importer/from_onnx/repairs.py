"""Repairs of TVM's converters of ONNX operators, and what of them is refused.

A repair takes the operands (None where one is left out), the attributes and the opset. It returns an
expression or a tuple of them, or None where TVM's own converter is right. Its errors say what is not taken.

Those of Clip, Pad and Tile stand for loop nests, in which no pass can see a hardtanh or a padding; those of
Max, Min and Sum for a stack of the operands that is reduced. The others stand for what TVM computes wrongly.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import tvm
from onnx import helper
from onnx.reference import ReferenceEvaluator
from tvm import relax

from bibench_tvm.importer.operators import hyperbolic, log1p, scatter, weighed

Repair = Callable[[list[Any], dict[str, Any], int], relax.Expr | None]


def _number(expr: relax.Expr | None) -> float | None:
    """The value of a constant with one element, else None."""
    if not isinstance(expr, tvm.ir.GenericConst) or expr.value.numpy().size != 1:
        return None
    return expr.value.numpy().item()


def _clip(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr:
    x, low, high = (*inputs, None, None)[:3]
    dtype = x.ty.dtype.dtype
    # Until opset 10 the bounds were attributes.
    low = relax.const(attrs["min"], dtype) if "min" in attrs else low
    high = relax.const(attrs["max"], dtype) if "max" in attrs else high
    below, above = _number(low), _number(high)
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
    widths = np.array(attrs["pads"]) if "pads" in attrs else _constant(pads, "pads")
    rank = x.ty.ndim
    axes = range(rank) if axes is None else [int(axis) % rank for axis in _constant(axes, "axes")]
    pairs = np.zeros((rank, 2), dtype=int)
    pairs[list(axes)] = widths.reshape(2, -1).T
    mode = attrs.get("mode", b"constant").decode()
    fill = attrs.get("value", 0.0) if value is None else _number(value)
    if fill is None:
        raise NotImplementedError("the value of Pad is not a constant.")
    relax_mode = {"edge": "replicate", "wrap": "circular"}.get(mode, mode)
    return relax.op.nn.pad(x, [int(width) for width in pairs.ravel()], relax_mode, fill)


def _tile(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr:
    return relax.op.tile(inputs[0], [int(repeat) for repeat in _constant(inputs[1], "repeats")])


def _power(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr:
    """The result is of the type of the base; TVM wants the exponent to be of it too."""
    base, exponent = inputs
    if not any("float" in operand.ty.dtype.dtype for operand in inputs):
        number = _number(exponent)
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


def _constant(expr: relax.Expr, what: str) -> np.ndarray:
    if not isinstance(expr, tvm.ir.GenericConst):
        raise NotImplementedError(f"{what} is computed from the input; it has to be a constant.")
    return expr.value.numpy()


def _pairwise(relax_op: Callable[[relax.Expr, relax.Expr], relax.Expr]) -> Repair:
    return lambda inputs, attrs, opset: functools.reduce(relax_op, inputs)


def _shape(x: relax.Expr) -> tuple[int, ...]:
    return tuple(int(size) for size in x.ty.shape)


def _dtype(x: relax.Expr) -> str:
    return str(x.ty.dtype.dtype)


def _resize(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr | None:
    """TVM's own where it is right, else each axis by the weights that ONNX's reference gives it."""
    if opset < 11:  # (x, scales), also of Upsample
        inputs = [
            inputs[0],
            None,
            relax.const(np.array(attrs["scales"], "f4")) if "scales" in attrs else inputs[1],
        ]
        how = {"coordinate_transformation_mode": b"asymmetric", "nearest_mode": b"floor"}
        attrs = {"mode": attrs.get("mode", b"nearest"), **how}
    x, _, scales, sizes = (*inputs, None, None, None)[:4]
    modes = (
        "coordinate_transformation_mode",
        "mode",
        "nearest_mode",
        "cubic_coeff_a",
        "antialias",
        "exclude_outside",
    )
    given = {name: attrs[name] for name in modes if name in attrs}
    coordinates = given.get("coordinate_transformation_mode", b"half_pixel")
    shape = _shape(x)
    axes = [int(axis) % len(shape) for axis in attrs.get("axes", range(len(shape)))]
    policy = attrs.get("keep_aspect_ratio_policy", b"stretch").decode()
    wanted = [
        values for values in (scales, sizes) if values is not None and _constant(values, "the size").size
    ]
    if policy != "stretch":
        raise NotImplementedError(f"keep_aspect_ratio_policy={policy!r}; write the sizes that come of it.")
    if len(wanted) != 1:
        raise NotImplementedError("either scales or sizes have to be given.")
    numbers = dict(zip(axes, _constant(wanted[0], "the size").tolist(), strict=True))
    exact = all(
        wanted[0] is sizes or float(shape[axis] * number).is_integer() for axis, number in numbers.items()
    )
    if coordinates == b"align_corners" and not exact:
        raise NotImplementedError(
            "align_corners with scales that make no whole sizes, in which runtimes differ; write the sizes."
        )
    if coordinates == b"tf_crop_and_resize":
        if not exact or given.get("antialias") or given.get("exclude_outside") or "axes" in attrs:
            raise NotImplementedError(
                "tf_crop_and_resize with axes, antialias, exclude_outside or a broken size."
            )
        return None
    plain = given.get("mode", b"nearest") != b"cubic" and not given.get("antialias")
    turned = coordinates in (b"half_pixel", b"asymmetric", b"align_corners")
    spatial = [axis for axis in axes if axis > 1]
    outside = [
        axis for axis in axes if axis < 2 and numbers[axis] != (shape[axis] if wanted[0] is sizes else 1)
    ]
    if (
        plain
        and turned
        and exact
        and opset >= 11
        and not outside
        and "axes" not in attrs
        and len(shape) in (3, 4, 5)
    ):
        outs = [numbers[axis] if wanted[0] is sizes else shape[axis] * numbers[axis] for axis in spatial]
        if min(outs) > 1:
            return None
    for axis in axes:
        size = shape[axis]
        if numbers[axis] == (size if wanted[0] is sizes else 1):
            continue
        x = weighed(x, len(shape), axis, _resized_axis(size, numbers[axis], wanted[0] is sizes, given))
    return x


def _resized_axis(size: int, number: float, is_size: bool, attrs: dict[str, Any]) -> np.ndarray:
    """float32 [size, out]: the weight of each input in each output. number: of the outputs, or a scale."""
    values = np.array([size, number], np.int64) if is_size else np.array([1, number], np.float32)
    node = helper.make_node("Resize", ["x", "", "", "v"] if is_size else ["x", "", "v"], ["y"], **attrs)
    graph = helper.make_graph(
        [node],
        "axis",
        [
            helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [size, size]),
            helper.make_tensor_value_info("v", helper.np_dtype_to_tensor_dtype(values.dtype), [2]),
        ],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])
    [matrix] = ReferenceEvaluator(model).run(None, {"x": np.eye(size, dtype=np.float32), "v": values})
    return np.asarray(matrix, np.float32)


def _is_inf(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr:
    found = [
        relax.op.equal(inputs[0], relax.const(np.float32(value)))
        for name, value in (("detect_negative", -np.inf), ("detect_positive", np.inf))
        if attrs.get(name, 1)
    ]
    if not found:
        return relax.op.zeros(_shape(inputs[0]), "bool")
    return functools.reduce(relax.op.logical_or, found)


def _space_to_depth(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr:
    n, c, h, w = _shape(inputs[0])
    block = attrs["blocksize"]
    blocks = relax.op.reshape(inputs[0], (n, c, h // block, block, w // block, block))
    channels_last = attrs.get("mode", b"DCR") == b"DCR"
    turned = relax.op.permute_dims(blocks, [0, 3, 5, 1, 2, 4] if channels_last else [0, 1, 3, 5, 2, 4])
    return relax.op.reshape(turned, (n, c * block * block, h // block, w // block))


def _dropout(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr:
    if len(inputs) > 2 and inputs[2] is not None and _number(inputs[2]) != 0:
        raise NotImplementedError("training_mode: a compiled network draws no random numbers.")
    for name in ("ratio", "seed", "is_test"):
        attrs.get(name)  # they mean nothing in inference
    if attrs["tvm_custom"]["num_outputs"] == 1:
        return inputs[0]
    return relax.Tuple([inputs[0], relax.op.ones(_shape(inputs[0]), "bool")])


def _batch_norm(inputs: list[Any], attrs: dict[str, Any], opset: int) -> None:
    if attrs.get("training_mode", 0):
        raise NotImplementedError("training_mode=1: export the network in its eval mode.")
    if attrs["tvm_custom"]["num_outputs"] > 1:
        raise NotImplementedError("statistics as outputs: export the network in its eval mode.")
    attrs.get("is_test"), attrs.get("consumed_inputs")


def _layer_norm(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr | None:
    """With the mean and the inverse deviation that ONNX has as further outputs."""
    axis = attrs.get("axis", -1) % len(_shape(inputs[0]))
    outputs = attrs["tvm_custom"]["num_outputs"]
    x, scale, bias = (*inputs, None)[:3]
    axes = list(range(axis, len(_shape(x))))
    if outputs == 1 and axis > 0 and _shape(scale) == _shape(x)[axis:]:
        return None
    mean = relax.op.mean(x, axes, keepdims=True)
    moved = relax.op.subtract(x, mean)
    variance = relax.op.mean(relax.op.multiply(moved, moved), axes, keepdims=True)
    inverse = relax.op.rsqrt(relax.op.add(variance, relax.const(np.float32(attrs.get("epsilon", 1e-5)))))
    made = relax.op.multiply(relax.op.multiply(moved, inverse), scale)
    if bias is not None:
        made = relax.op.add(made, bias)
    return relax.Tuple([made, mean, inverse][:outputs]) if outputs > 1 else made


def _rms_norm(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr | None:
    x, scale = inputs
    axis = attrs.get("axis", -1) % len(_shape(x))
    if axis > 0 and _shape(scale) == _shape(x)[axis:]:
        return None
    axes = list(range(axis, len(_shape(x))))
    square = relax.op.mean(relax.op.multiply(x, x), axes, keepdims=True)
    inverse = relax.op.rsqrt(relax.op.add(square, relax.const(np.float32(attrs.get("epsilon", 1e-5)))))
    return relax.op.multiply(relax.op.multiply(x, inverse), scale)


def _roi_align(inputs: list[Any], attrs: dict[str, Any], opset: int) -> None:
    if attrs.get("mode", b"avg") != b"avg":
        raise NotImplementedError("mode='max'.")
    half = attrs.get("coordinate_transformation_mode", b"half_pixel" if opset >= 16 else b"output_half_pixel")
    if half == b"half_pixel" and attrs.get("spatial_scale", 1.0) != 1:
        raise NotImplementedError("half_pixel together with a spatial_scale.")  # TVM shifts before it scales


def _mod(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr | None:
    if attrs.get("fmod", 0) or "float" not in _dtype(inputs[0]):
        return None
    x, y = inputs
    zero = relax.const(np.float32(0))
    rest = relax.op.mod(x, y)
    turned = relax.op.less(relax.op.multiply(relax.op.sign(rest), relax.op.sign(y)), zero)
    return relax.op.where(turned, relax.op.add(rest, y), rest)


def _bit_shift(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr:
    x, by = inputs
    kind = _dtype(x)
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


def _of_truths(inputs: list[Any], attrs: dict[str, Any], opset: int, reduce: Any) -> relax.Expr | None:
    """TVM has no least and no greatest truth."""
    x = inputs[0]
    if _dtype(x) != "bool":
        return None
    axes = attrs.get(
        "axes", _constant(inputs[1], "axes") if len(inputs) > 1 and inputs[1] is not None else ()
    )
    if not len(axes) and attrs.get("noop_with_empty_axes", 0):
        return x
    made = reduce(relax.op.astype(x, "uint8"), [int(a) for a in axes] or None, bool(attrs.get("keepdims", 1)))
    return relax.op.astype(made, "bool")


def _mish(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr:
    """x tanh(log(1 + e^x)) without the logarithm, which loses the digits of small numbers."""
    x = inputs[0]
    power = relax.op.exp(relax.op.minimum(x, relax.const(np.float32(20))))
    part = relax.op.multiply(power, relax.op.add(power, relax.const(np.float32(2))))
    return relax.op.multiply(x, relax.op.divide(part, relax.op.add(part, relax.const(np.float32(2)))))


def _softplus(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr:
    x = inputs[0]
    small = log1p(relax.op.exp(relax.op.negative(relax.op.abs(x))))
    return relax.op.add(relax.op.maximum(x, relax.const(np.float32(0))), small)


def _split(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr | None:
    """Without the parts that have no elements, which nothing reads."""
    x, sizes = (*inputs, None)[:2]
    widths = np.array(attrs.get("split", ())) if sizes is None else _constant(sizes, "split")
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
    if any(size != 1 for size in attrs.get("dilations", ())):
        raise NotImplementedError("dilations.")


def _integer_product(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr | None:
    """Of bytes, in float32 where that holds the sums exactly: our kernels of products are of floats."""
    a, b, *zeros = inputs
    if _shape(a)[-1] > 256:  # 256 * 255 * 255 < 2 ** 24
        return None
    operands = []
    for x, zero, is_left in zip((a, b), (*zeros, None, None), (True, False), strict=False):
        value = relax.op.astype(x, "float32")
        if zero is not None:
            moved = relax.op.astype(zero, "float32")
            if is_left and len(_shape(zero)) == 1 and _shape(zero)[0] > 1:  # one for each row
                moved = relax.op.expand_dims(moved, -1)
            value = relax.op.subtract(value, moved)
        operands.append(value)
    return relax.op.astype(relax.op.matmul(*operands), "int32")


def _refused(reason: str) -> Repair:
    def refuse(inputs: list[Any], attrs: dict[str, Any], opset: int) -> None:
        raise NotImplementedError(reason)

    return refuse


REPAIRS: dict[str, Repair] = {
    "Clip": _clip,
    "Pad": _pad,
    "Tile": _tile,
    "Pow": _power,
    "Max": _pairwise(relax.op.maximum),
    "Min": _pairwise(relax.op.minimum),
    "Sum": _pairwise(relax.op.add),
    "Resize": _resize,
    "Upsample": _resize,
    "IsInf": _is_inf,
    "SpaceToDepth": _space_to_depth,
    "Dropout": _dropout,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "RoiAlign": _roi_align,
    "Mod": _mod,
    "BitShift": _bit_shift,
    "ReduceMax": functools.partial(_of_truths, reduce=relax.op.max),
    "ReduceMin": functools.partial(_of_truths, reduce=relax.op.min),
    "Split": _split,
    "Mish": _mish,
    "Softplus": _softplus,
    "Sinh": lambda inputs, attrs, opset: hyperbolic(inputs[0], sine=True),
    "Cosh": lambda inputs, attrs, opset: hyperbolic(inputs[0], sine=False),
    "ScatterElements": _scatter_elements,
    "Scatter": _scatter_elements,
    "LpPool": _lp_pool,
    "MatMulInteger": _integer_product,
    "MaxUnpool": _refused("it puts values where the input says."),
    "NonMaxSuppression": _refused(
        "how many boxes it keeps depends on the values of the input; do that behind it."
    ),
    "ConstantOfShape": _refused("its shape is computed from the input; it has to be a constant."),
}
# What changes nothing that is compiled here: (operator or "", attribute).
IGNORED = {
    *((op, "kernel_shape") for op in ("Conv", "ConvTranspose")),  # it is that of the weights
    ("Split", "num_outputs"),  # it is the number of outputs
    ("MaxPool", "storage_order"),  # of the indices, which TVM does not give
    *(
        (op, name) for op in ("Cast", "CastLike", "QuantizeLinear") for name in ("saturate", "round_mode")
    ),  # float8
}


class Attributes(dict[str, Any]):
    """The attributes of a node, and which of them a converter has read."""

    def __init__(self, attributes: dict[str, Any]) -> None:
        super().__init__(attributes)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.read.add(name)
        return super().get(name, default)

    def ignored(self, operator: str, opset: int) -> list[str]:
        """Those that nobody has read, and that are not what they are by default."""
        try:
            known = onnx.defs.get_schema(operator, opset).attributes
        except onnx.defs.SchemaError:
            known = {}
        found = []
        for name in sorted(set(self) - self.read - {"tvm_custom"}):
            default = helper.get_attribute_value(known[name].default_value) if name in known else None
            if (operator, name) not in IGNORED and super().__getitem__(name) != default:
                found.append(name)
        return found
