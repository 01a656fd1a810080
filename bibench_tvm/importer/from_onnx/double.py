"""The operators of a plain ONNX model in float64, one at a time.

ONNX's reference implementation computes them, whose operators take any dtype. Not all of them compute what
runtimes do: it has no groups in ConvTranspose, takes the padding of MaxPool in another order, and rounds
where Resize takes the nearest in another way in float64 than in float32. So each node is tried in float32
first, beside the source's runtime; where the two differ by more than rounding it is the runtime that counts,
and the node is computed by it, in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.ops.op_conv_transpose import ConvTranspose as _ConvTranspose
from onnx.reference.ops.op_dequantize_linear import DequantizeLinear_19

Arrays = list[np.ndarray | None]
"""The operands or results of a node; None for one that is left out."""

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)
_SAME = 1e-3  # of the largest value: no rounding of one operator is as large


def conv_transpose(
    x: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray | None,
    *,
    group: int,
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    output_padding: Sequence[int],
) -> np.ndarray:
    """x [N, C, ..], weights [C, O / group, ..] -> [N, O, ..]. pads: all begins, then all ends."""
    n, channels, *sizes = x.shape
    _, per_group, *kernel = weights.shape
    x = x.reshape(n, group, channels // group, *sizes)
    weights = weights.reshape(group, channels // group, per_group, *kernel)
    extents = [
        (size - 1) * stride + (window - 1) * dilation + 1 + extra
        for size, stride, window, dilation, extra in zip(
            sizes, strides, kernel, dilations, output_padding, strict=True
        )
    ]
    spread = np.zeros((n, group, per_group, *extents), x.dtype)
    tap: Any
    for tap in np.ndindex(*kernel):
        reached: Any = tuple(
            slice(at * dilation, at * dilation + (size - 1) * stride + 1, stride)
            for at, dilation, size, stride in zip(tap, dilations, sizes, strides, strict=True)
        )
        spread[(..., *reached)] += np.einsum("ngc...,gco->ngo...", x, weights[(..., *tap)])
    begins, ends = pads[: len(sizes)], pads[len(sizes) :]
    inside: Any = tuple(slice(b, extent - e) for b, extent, e in zip(begins, extents, ends, strict=True))
    made = spread.reshape(n, group * per_group, *extents)[(..., *inside)]
    return made if bias is None else made + bias.reshape(-1, *[1] * len(sizes))


class ConvTranspose(_ConvTranspose):
    op_domain = ""

    def _run(self, x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None, **attributes: Any) -> Any:
        rank, group = x.ndim - 2, attributes.get("group") or 1
        if attributes.get("auto_pad") not in (None, "NOTSET") or attributes.get("output_shape"):
            if group > 1:
                raise NotImplementedError("groups, and padding that is not spelled out")
            return super()._run(x, w, b, **attributes)

        def given(name: str, default: list[int]) -> list[int]:
            return attributes.get(name) or default

        made = conv_transpose(
            x,
            w,
            b,
            group=group,
            strides=given("strides", [1] * rank),
            dilations=given("dilations", [1] * rank),
            pads=given("pads", [0] * 2 * rank),
            output_padding=given("output_padding", [0] * rank),
        )
        return (made.astype(x.dtype),)


class DequantizeLinear(DequantizeLinear_19):
    op_domain = ""

    def _run(
        self, x: np.ndarray, scale: np.ndarray, zero: np.ndarray | None = None, **attributes: Any
    ) -> Any:
        axis = attributes.get("axis")
        return super()._run(x, np.asarray(scale), zero, 1 if axis is None else axis)


def evaluator(model: onnx.ModelProto) -> ReferenceEvaluator:
    """ONNX's reference implementation, with groups in ConvTranspose, which it gets wrong, and with the
    DequantizeLinear of before opset 19, which it lacks."""
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    lacking = [DequantizeLinear] if opset < 19 else []
    return ReferenceEvaluator(model, new_ops=[ConvTranspose, *lacking])


class DoubleNodes:
    """Nodes of one model, known by their first output, evaluated in float64.

    runtime: the source's, of a model of one node.
    """

    def __init__(
        self, model: onnx.ModelProto, runtime: Callable[[onnx.ModelProto], Callable[..., list[Any]]]
    ) -> None:
        self.model, self._runtime = model, runtime
        self._wide: dict[str, Callable[[Arrays], Arrays] | None] = {}
        self._narrow: dict[str, Callable[[Arrays], Arrays]] = {}
        self.rounded_in_float32 = False
        """Whether a node that does more than to move numbers had to be computed in float32."""

    def __call__(self, node: NodeProto, operands: Arrays) -> Arrays:
        name = node.output[0]
        if name not in self._wide:
            self._wide[name] = self._tried(node, operands)
        wide = self._wide[name]
        if wide is not None:
            return wide(operands)
        return _widened(self._narrow[name](_narrowed(operands)))

    def _tried(self, node: NodeProto, operands: Arrays) -> Callable[[Arrays], Arrays] | None:
        """How the node is computed in float64, None where it has to be in float32."""
        narrow = _narrowed(operands)
        in_float32 = _runner_of(node, narrow, self._runtime, self.model)
        wanted = in_float32(narrow)
        try:
            given = _widened(narrow)
            wide = _runner_of(node, given, lambda model: evaluator(_in_double(model)).run, self.model)
            if all(map(_same, wide(given), wanted)):
                return wide
        except Exception:  # an operator that has no float64 in ONNX's reference implementation
            pass
        self._narrow[node.output[0]] = in_float32
        self.rounded_in_float32 |= not _only_moves(narrow, wanted)
        return None


def _runner_of(
    node: NodeProto,
    operands: Arrays,
    runtime: Callable[[onnx.ModelProto], Callable[..., list[Any]]],
    model: onnx.ModelProto,
) -> Callable[[Arrays], Arrays]:
    """The node alone as a function of operands of these types and shapes."""
    alone = NodeProto()
    alone.CopyFrom(node)
    alone.input[:] = [f"i{p}" if x is not None else "" for p, x in enumerate(operands)]
    alone.output[:] = [f"o{p}" if name else "" for p, name in enumerate(node.output)]
    names = [name for name in alone.output if name]
    inputs = [
        helper.make_tensor_value_info(f"i{p}", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for p, x in enumerate(operands)
        if x is not None
    ]
    graph = helper.make_graph([alone], "node", inputs, [onnx.ValueInfoProto(name=name) for name in names])
    made = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    run = runtime(made)

    def evaluate(given: Arrays) -> Arrays:
        feeds = {f"i{p}": x for p, x in enumerate(given) if x is not None}
        found = dict(zip(names, run(names, feeds), strict=True))
        return [np.asarray(found[name]) if name else None for name in alone.output]

    return evaluate


def _same(wide: np.ndarray | None, narrow: np.ndarray | None) -> bool:
    """But for rounding; of numbers that are no floats the shape alone is looked at."""
    if wide is None or narrow is None:
        return wide is narrow
    if wide.shape != narrow.shape or narrow.dtype.kind != "f":
        return wide.shape == narrow.shape
    scale = float(np.abs(narrow[np.isfinite(narrow)]).max(initial=0.0))
    return bool(np.allclose(wide, narrow, rtol=0, atol=_SAME * scale, equal_nan=True))


def _only_moves(operands: Arrays, results: Arrays) -> bool:
    """Whether every float among the results is one of the operands', or 0."""
    floats = [x.ravel() for x in operands if x is not None and x.dtype.kind == "f"]
    given = np.concatenate([*floats, np.zeros(1, np.float32)])
    return all(np.isin(y, given).all() for y in results if y is not None and y.dtype.kind == "f")


def widened(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _widened(arrays: Arrays) -> Arrays:
    return [x if x is None else widened(x) for x in arrays]


def _narrowed(arrays: Arrays) -> Arrays:
    return [x.astype(np.float32) if x is not None and x.dtype.kind == "f" else x for x in arrays]


def _in_double(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model of one node with every float in float64. Changes the model."""
    graph = model.graph
    for value in graph.input:
        if value.type.tensor_type.elem_type in FLOATS:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i in FLOATS:
                attribute.i = TensorProto.DOUBLE
            elif attribute.type == AttributeProto.TENSOR and attribute.t.data_type in FLOATS:
                wide = numpy_helper.to_array(attribute.t).astype(np.float64)
                attribute.t.CopyFrom(numpy_helper.from_array(wide))
    return model
