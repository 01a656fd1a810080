"""QONNX's quantizers, as Brevitas exports them, in ONNX's own operators.

https://github.com/fastmachinelearning/qonnx, docs/qonnx-custom-ops. A quantizer of one bit gives two values:
s where x >= 0, else -s (`BipolarQuant`, and `Quant` of one bit with a sign); of more bits, floats that are
multiples of a scale. Between them are ordinary layers, of which the passes find what is binary.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from bibench_tvm.importer.from_onnx.nodes import attributes_of, name_of
from bibench_tvm.importer.imported import ImportFailed

DOMAINS = ("qonnx.custom_op.general", "finn.custom_op.general", "onnx.brevitas")
MOST_BITS = 32
OLDEST = 13  # opset in which all operators are what they are here


def expand_quantizers(model: onnx.ModelProto, path: Path) -> None:
    """Put ONNX's operators in the place of the quantizers of the graph, in place.

    Raises:
        ImportFailed: one rounds in a way that is not known, has a bit width that is computed, or the opset is
            too old.
    """
    graph = model.graph
    wanted = [node for node in graph.node if node.domain in DOMAINS and node.op_type in _QUANTIZERS]
    if not wanted:
        return
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < OLDEST:
        raise ImportFailed(
            f"{path} has quantizers of QONNX and ONNX opset {opset}; export it with opset {OLDEST} or newer."
        )
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and "value" in (attributes := attributes_of(node)):
            constants[node.output[0]] = numpy_helper.to_array(attributes["value"])
    taken = {name for node in graph.node for name in (*node.input, *node.output)} | set(constants)
    made: list[NodeProto] = []
    for node in graph.node:
        if node in wanted:
            needed = 2 if node.op_type == "BipolarQuant" else 4
            if len(node.input) != needed or not all(node.input) or len(node.output) != 1:
                raise ImportFailed(
                    f"The quantizer {node.op_type} (node {name_of(node)!r}) in {path} should have {needed} "
                    "inputs and one output."
                )
            maker = _Maker(graph, name_of(node), taken, made)
            _QUANTIZERS[node.op_type](maker, node, constants, path)
        else:
            made.append(node)
    del graph.node[:]
    graph.node.extend(made)


class _Maker:
    """Adds nodes under names of their own."""

    def __init__(self, graph: onnx.GraphProto, stem: str, taken: set[str], made: list[NodeProto]) -> None:
        self.graph, self.stem, self.taken, self.made = graph, stem, taken, made

    def __call__(self, op: str, *inputs: str, output: str = "") -> str:
        output = output or self._name(op)
        self.made.append(helper.make_node(op, inputs, [output], name=self._name(op)))
        return output

    def number(self, value: float) -> str:
        name = self._name("number")
        self.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
        return name

    def signs(self, x: str) -> str:
        """1 where x >= 0, else -1."""
        positive = self("GreaterOrEqual", x, self.number(0))
        return self("Where", positive, self.number(1), self.number(-1))

    def _name(self, kind: str) -> str:
        count = 0
        while (name := f"{self.stem}/{kind}{count or ''}") in self.taken:
            count += 1
        self.taken.add(name)
        return name


def _bipolar_quant(make: _Maker, node: NodeProto, constants: dict[str, Any], path: Path) -> None:
    make("Mul", make.signs(node.input[0]), node.input[1], output=node.output[0])


def _quant(make: _Maker, node: NodeProto, constants: dict[str, Any], path: Path) -> None:
    """(quantized(x / scale + zero) - zero) * scale."""
    x, scale, zero, width = node.input
    attributes = attributes_of(node)
    signed, narrow = (bool(attributes.get(name, default)) for name, default in (("signed", 1), ("narrow", 0)))
    bits = constants.get(width)
    if bits is None or bits.size != 1:
        raise ImportFailed(
            f"The bit width of the quantizer {name_of(node)!r} in {path} is computed, or one a channel; it "
            "has to be one constant."
        )
    count = float(bits.reshape(()))
    if not 1 <= count <= MOST_BITS:
        raise ImportFailed(
            f"The quantizer {name_of(node)!r} in {path} has {count:g} bits; it has to be 1 to {MOST_BITS}."
        )
    levels = 2.0**count
    shifted = zero not in constants or bool(constants[zero].any())
    y = make("Div", x, scale)
    y = make("Add", y, zero) if shifted else y
    if levels == 2 and signed:
        y = make.signs(y)
    else:
        low = -levels / 2 + narrow if signed else 0.0
        high = levels / 2 - 1 if signed else levels - 1 - narrow
        mode = attributes.get("rounding_mode", b"ROUND").decode().upper()
        if mode not in _ROUNDING:
            raise ImportFailed(
                f"The quantizer {name_of(node)!r} in {path} rounds by {mode[:20]!r}; known are "
                f"{', '.join(_ROUNDING)}."
            )
        y = _ROUNDING[mode](make, make("Clip", y, make.number(low), make.number(high)))
    y = make("Sub", y, zero) if shifted else y
    make("Mul", y, scale, output=node.output[0])


def _of_magnitude(make: _Maker, x: str, op: str, shift: float) -> str:
    """sign(x) * op(|x| + shift)."""
    magnitude = make("Abs", x)
    magnitude = make("Add", magnitude, make.number(shift)) if shift else magnitude
    return make("Mul", make("Sign", x), make(op, magnitude))


_QUANTIZERS = {"BipolarQuant": _bipolar_quant, "Quant": _quant, "IntQuant": _quant}
_ROUNDING = {
    **dict.fromkeys(("ROUND", "HALF_EVEN"), lambda make, x: make("Round", x)),
    "CEIL": lambda make, x: make("Ceil", x),
    "FLOOR": lambda make, x: make("Floor", x),
    "UP": lambda make, x: _of_magnitude(make, x, "Ceil", 0),
    "DOWN": lambda make, x: _of_magnitude(make, x, "Floor", 0),
    "HALF_UP": lambda make, x: _of_magnitude(make, x, "Floor", 0.5),
    "HALF_DOWN": lambda make, x: _of_magnitude(make, x, "Ceil", -0.5),
}
