"""Sums of products that are matrix products, as `MatMul` between transposes: layers like others."""

from __future__ import annotations

import math
import string
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from bibench_tvm.importer.from_onnx.nodes import attributes_of, name_of
from bibench_tvm.importer.from_onnx.shapes import static_shapes

Shapes = dict[str, tuple[int, ...]]


def spell_out_einsum(model: onnx.ModelProto) -> None:
    """In place, and before the source is copied as its own reference, so that both have the layer. The
    operands are multiplied one after another; a product whose letters stand once in each operand and are
    summed over in both or in none becomes a layer, others stay."""
    if not any(node.op_type == "Einsum" for node in model.graph.node):
        return
    shapes = static_shapes(onnx.shape_inference.infer_shapes(model, data_prop=True))
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        terms = _terms(node, shapes) if node.op_type == "Einsum" else None
        nodes += [node] if terms is None else _by_pairs(model, node, terms, shapes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _terms(node: NodeProto, shapes: Shapes) -> list[str] | None:
    """The letters of each operand, then of the result, with letters of their own for the ellipsis."""
    equation = attributes_of(node)["equation"].decode().replace(" ", "")
    given, arrow, out = equation.partition("->")
    terms = given.split(",")
    if len(terms) != len(node.input) or len(terms) < 2 or not all(name in shapes for name in node.input):
        return None
    if not arrow:
        out = "..." * ("..." in given) + "".join(
            c for c in sorted(given) if c.isalpha() and given.count(c) == 1
        )
    unused = [letter for letter in string.ascii_letters if letter not in equation]
    hidden = [
        len(shapes[name]) - len(term.replace("...", "")) for name, term in zip(node.input, terms, strict=True)
    ]
    if any(count < 0 or (count and "..." not in term) for count, term in zip(hidden, terms, strict=True)):
        return None
    ellipsis = "".join(unused[: max(hidden)])  # axes are counted from the last
    counts = [*hidden, max(hidden)]
    spelled = [
        term.replace("...", ellipsis[len(ellipsis) - count :])
        for term, count in zip([*terms, out], counts, strict=True)
    ]
    once = all(len(set(term)) == len(term) for term in spelled)
    return spelled if once and set(spelled[-1]) <= set("".join(spelled[:-1])) else None


def _by_pairs(model: onnx.ModelProto, node: NodeProto, terms: list[str], shapes: Shapes) -> list[NodeProto]:
    made: list[NodeProto] = []
    left, term = node.input[0], terms[0]
    for position in range(1, len(node.input)):
        right, right_term, later = node.input[position], terms[position], terms[position + 1 :]
        last = len(later) == 1
        kept = "".join(c for c in dict.fromkeys(term + right_term) if c in "".join(later))
        out_term = later[0] if last else kept
        out = node.output[0] if last else f"{node.output[0]}/up to {position}"
        pair = helper.make_node(
            "Einsum", [left, right], [out], name_of(node), equation=f"{term},{right_term}->{out_term}"
        )
        made += _as_product(model, pair, (term, right_term, out_term), shapes)
        left, term = out, out_term
    return made


def _as_product(
    model: onnx.ModelProto, node: NodeProto, terms: tuple[str, str, str], shapes: Shapes
) -> list[NodeProto]:
    """The nodes of a product of two operands, whose shape is noted; the node itself where it is none."""
    extents: dict[str, int] = {}
    for name, term in zip(node.input, terms, strict=False):
        for letter, extent in zip(term, shapes[name], strict=True):
            extents[letter] = max(extent, extents.get(letter, 1))
    # An axis of 1 that meets a longer one is broadcast: the operand is as without it.
    left, right = (
        "".join(c for c, extent in zip(term, shapes[name], strict=True) if extent == extents[c])
        for name, term in zip(node.input, terms, strict=False)
    )
    out = terms[2]
    shapes[node.output[0]] = tuple(extents[letter] for letter in out)
    batch = [letter for letter in out if letter in left and letter in right]
    rows = [letter for letter in out if letter not in right]
    columns = [letter for letter in out if letter not in left]
    summed = [letter for letter in left if letter not in out]
    if not summed or {*summed} != {*left, *right} - {*out} or not {*summed} <= {*right}:
        return [node]
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

    def matrix(position: int, term: str, first: list[str], second: list[str]) -> str:
        """The operand as [.., M, K] or [.., K, N]."""
        operand = node.input[position]
        if term != terms[position]:
            without = shape(f"{position}/without", [extents[letter] for letter in term])
            operand = emit("Reshape", [operand, without], f"{position}/unspread")
        order = [term.index(letter) for letter in (*batch, *first, *second)]
        turned = emit("Transpose", [operand], f"{position}/turned", perm=order)
        wanted = [*([size(batch)] if batch else []), size(first), size(second)]
        return emit("Reshape", [turned, shape(f"{position}/shape", wanted)], str(position))

    operands = [matrix(0, left, rows, summed), matrix(1, right, summed, columns)]
    product = emit("MatMul", operands, "product", name=name_of(node))
    letters = [*batch, *rows, *columns]
    whole = shape("shape", [extents[letter] for letter in letters])
    order = [letters.index(letter) for letter in out]
    if not order:
        made.append(helper.make_node("Reshape", [product, whole], [node.output[0]]))
        return made
    apart = emit("Reshape", [product, whole], "apart")
    made.append(helper.make_node("Transpose", [apart], [node.output[0]], perm=order))
    return made
