"""Resize and Upsample of ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator
from tvm import relax

from bibench_tvm.importer.from_onnx.expressions import constant, shape_of
from bibench_tvm.importer.from_onnx.nearest import COORDINATES, exact_elements, nearest_elements
from bibench_tvm.importer.operators import weighed


def resize(inputs: list[Any], attrs: dict[str, Any], opset: int) -> relax.Expr | None:
    """TVM's own where it is right, else each axis by the elements that onnxruntime takes, or by the weights
    that ONNX's reference gives it."""
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
    shape = shape_of(x)
    axes = [int(axis) % len(shape) for axis in attrs.get("axes", range(len(shape)))]
    policy = attrs.get("keep_aspect_ratio_policy", b"stretch").decode()
    wanted = [
        values for values in (scales, sizes) if values is not None and constant(values, "the size").size
    ]
    if policy != "stretch":
        raise NotImplementedError(f"keep_aspect_ratio_policy={policy!r}; write the sizes that come of it.")
    if len(wanted) != 1:
        raise NotImplementedError("either scales or sizes have to be given.")
    are_sizes = wanted[0] is sizes
    numbers = dict(zip(axes, constant(wanted[0], "the size").tolist(), strict=True))
    changed = [axis for axis in axes if numbers[axis] != (shape[axis] if are_sizes else 1)]
    exact = are_sizes or all(float(shape[axis] * number).is_integer() for axis, number in numbers.items())
    if coordinates == b"align_corners" and not exact:
        raise NotImplementedError(
            "align_corners with scales that make no whole sizes, in which runtimes differ; write the sizes."
        )
    if coordinates == b"tf_crop_and_resize":
        left_out = given.get("antialias") or given.get("exclude_outside") or "axes" in attrs
        if not exact or left_out or len(shape) not in (4, 5):
            raise NotImplementedError(
                "tf_crop_and_resize of anything but images and volumes, or with axes, antialias, "
                "exclude_outside or a broken size."
            )
        return None
    outs = {
        axis: int(number) if are_sizes else int(np.floor(np.float32(shape[axis]) * np.float32(number)))
        for axis, number in numbers.items()
    }
    if min(outs.values()) < 1:
        raise NotImplementedError("a size of 0.")
    broken = not are_sizes and any(1 < shape[axis] * number < 2 for axis, number in numbers.items())
    if coordinates == b"pytorch_half_pixel" and broken:
        raise NotImplementedError(
            "pytorch_half_pixel with scales that make less than two elements, in which runtimes differ; "
            "write the sizes."
        )
    if all(shape[axis] == out for axis, out in outs.items()):
        return x  # whatever the scales: so do PyTorch and onnxruntime
    taken: dict[int, np.ndarray] = {}
    at_places = True  # whether it takes what exact arithmetic takes, which is how it is computed
    if given.get("mode", b"nearest") == b"nearest" and coordinates.decode() in COORDINATES:
        for axis in changed:
            size, out = shape[axis], outs[axis]
            scale = np.float32(out) / np.float32(size) if are_sizes else np.float32(numbers[axis])
            rounding = given.get("nearest_mode", b"round_prefer_floor").decode()
            if opset < 11 and scale < 1:
                rounding = "ceil"
            taken[axis] = nearest_elements(size, out, scale, coordinates.decode(), rounding)
            exactly = exact_elements(size, out, coordinates.decode(), rounding)
            at_places &= np.array_equal(taken[axis], exactly)
    plain = given.get("mode", b"nearest") != b"cubic" and not given.get("antialias") and at_places
    turned = coordinates in (b"half_pixel", b"asymmetric", b"align_corners")
    spatial = [axis for axis in axes if axis > 1]
    if (
        plain
        and turned
        and exact
        and opset >= 11
        and min(changed) > 1
        and "axes" not in attrs
        and len(shape) in (3, 4, 5)
    ):
        large = min(outs[axis] for axis in spatial) > 1
        if large and len(shape) > 3:
            return None
        if large and coordinates != b"align_corners":  # to the one row of an image TVM divides by 0
            return _of_signal(x, shape, outs[2], given)
    for axis in changed:
        if axis in taken:
            x = relax.op.take(x, relax.const(taken[axis]), axis)
        else:
            matrix = _resized_axis(shape[axis], numbers[axis], are_sizes, given)
            x = weighed(x, len(shape), axis, matrix)
    return x


def _of_signal(x: Any, shape: tuple[int, ...], out: int, given: dict[str, Any]) -> relax.Expr:
    """[N, C, L] as an image of one row: TVM's own for signals has no place in a Relax module."""
    mode = given.get("mode", b"nearest")
    image = relax.op.reshape(x, (*shape[:2], 1, shape[2]))
    resized = relax.op.image.resize2d(
        image,
        (1, out),
        layout="NCHW",
        method="nearest_neighbor" if mode == b"nearest" else mode.decode(),
        coordinate_transformation_mode=given.get("coordinate_transformation_mode", b"half_pixel").decode(),
        rounding_method=given.get("nearest_mode", b"round_prefer_floor").decode(),
    )
    return relax.op.reshape(resized, (*shape[:2], out))


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
