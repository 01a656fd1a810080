"""Sums of products that are matrix products, as `MatMul` between transposes: layers like others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from bibench_tvm.importer.from_onnx.nodes import attributes_of, name_of
from bibench_tvm.importer.from_onnx.shapes import static_shapes


def spell_out_einsum(model: onnx.ModelProto) -> None:
    """In place, and before the source is copied as its own reference, so that both have the layer. Of two
    operands, where each letter stands once and is summed over in both or in none; others stay."""
    if not any(node.op_type == "Einsum" for node in model.graph.node):
        return
    shapes = static_shapes(onnx.shape_inference.infer_shapes(model, data_prop=True))
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        terms = _terms(node, shapes)
        nodes += [node] if terms is None else _as_product(model, node, terms, shapes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _terms(node: NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, str, str] | None:
    """The letters of both operands and of the result."""
    if node.op_type != "Einsum" or len(node.input) != 2:
        return None
    equation = attributes_of(node)["equation"].decode().replace(" ", "")
    operands, arrow, out = equation.partition("->")
    left, comma, right = operands.partition(",")
    if not arrow:
        both = left + right
        out = "".join(sorted(letter for letter in both if both.count(letter) == 1))
    known = all(
        len(shapes.get(name, ())) == len(t) for name, t in zip(node.input, (left, right), strict=True)
    )
    single = all(len(set(term)) == len(term) and "." not in term for term in (left, right, out))
    summed = set(left + right) - set(out)
    products = bool(summed) and summed <= set(left) & set(right) and set(out) <= set(left + right)
    return (left, right, out) if comma and known and single and products else None


def _as_product(
    model: onnx.ModelProto,
    node: NodeProto,
    terms: tuple[str, str, str],
    shapes: Mapping[str, tuple[int, ...]],
) -> list[NodeProto]:
    left, right, out = terms
    given = zip(left + right, (*shapes[node.input[0]], *shapes[node.input[1]]), strict=True)
    extents = dict(given)
    batch = [letter for letter in out if letter in left and letter in right]
    rows = [letter for letter in out if letter not in right]
    columns = [letter for letter in out if letter not in left]
    summed = [letter for letter in left if letter not in out]
    made: list[NodeProto] = []

    def emit(operator: str, inputs: list[str], what: str, **attributes: Any) -> str:
        name = f"{node.output[0]}/{what}"
        made.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def shape(what: str, extents: list[int]) -> str:
        name = f"{node.output[0]}/{what}"
        model.graph.initializer.append(numpy_helper.from_array(np.array(extents, np.int64), name))
        return name

    def size(letters: list[str]) -> int:
        return math.prod(extents[letter] for letter in letters)

    def matrix(position: int, first: list[str], second: list[str]) -> str:
        """The operand as [.., M, K] or [.., K, N]."""
        order = [terms[position].index(letter) for letter in (*batch, *first, *second)]
        turned = emit("Transpose", [node.input[position]], f"{position}/turned", perm=order)
        wanted = [*([size(batch)] if batch else []), size(first), size(second)]
        return emit("Reshape", [turned, shape(f"{position}/shape", wanted)], str(position))

    operands = [matrix(0, rows, summed), matrix(1, summed, columns)]
    product = emit("MatMul", operands, "product", name=name_of(node))
    letters = [*batch, *rows, *columns]
    whole = emit("Reshape", [product, shape("shape", [extents[letter] for letter in letters])], "apart")
    order = [letters.index(letter) for letter in out]
    made.append(helper.make_node("Transpose", [whole], [node.output[0]], perm=order))
    return made
