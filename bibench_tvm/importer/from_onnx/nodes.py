"""What a node of an ONNX graph is called, has as attributes and holds."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import NodeProto, helper

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def name_of(node: NodeProto) -> str:
    return node.name or next(name for name in node.output if name)


def attributes_of(node: NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def has_subgraph(node: NodeProto) -> bool:
    return any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute)
