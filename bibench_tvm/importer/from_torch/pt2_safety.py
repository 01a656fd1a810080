"""What in a `.pt2` would keep PyTorch busy without end; nothing here runs code from the file."""

from __future__ import annotations

import ast
import contextlib
import json
import logging
import math
import warnings
from collections.abc import Iterator
from typing import Any

_MOST_NESTED = 100
_LARGEST = 1 << 64  # numbers of a program are of 64 bits
_LONGEST_SIZE = 2000  # characters of a size that is computed from others
_LARGEST_DEGREE = 8
_MOST_TERMS = 500  # of a size that is multiplied out, as sympy does


def read_json(content: bytes) -> Any:
    """Raises ValueError where it is nested deeper, or has larger numbers, than what PyTorch writes."""
    try:
        value = json.loads(content)
    except RecursionError as error:
        raise ValueError("its JSON is nested too deeply.") from error
    pending = [(value, 1)]
    while pending:
        item, depth = pending.pop()
        if depth > _MOST_NESTED:
            raise ValueError("its JSON is nested too deeply.")
        if isinstance(item, (dict, list)):
            pending += [(part, depth + 1) for part in (item.values() if isinstance(item, dict) else item)]
        elif isinstance(item, int) and abs(item) > _LARGEST:
            raise ValueError("it has a number of more than 64 bits.")
    return value


def is_modest(expression: str) -> bool:
    """Whether a size, as sympy prints it, is one that sympy reads in no time: no powers of powers."""
    if len(expression) > _LONGEST_SIZE:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(expression.strip(), mode="eval")
        bits, terms = _extent(tree.body, _MOST_NESTED)
    except (SyntaxError, ValueError, MemoryError, RecursionError, OverflowError):
        return False
    return bits <= 64 * _LARGEST_DEGREE and terms <= _MOST_TERMS


def _extent(node: ast.expr, deeper: int) -> tuple[float, float]:
    """(bits of the largest number that it may be, terms of it when multiplied out). Raises ValueError."""
    if deeper == 0:
        raise ValueError("nested too deeply")
    if isinstance(node, ast.Name):
        return 64, 1
    if isinstance(node, ast.Constant):
        return (node.value.bit_length(), 1) if isinstance(node.value, int) else (64, 1)
    if isinstance(node, ast.UnaryOp):
        return _extent(node.operand, deeper - 1)
    if isinstance(node, ast.BinOp):
        name, operands = type(node.op).__name__, [node.left, node.right]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        name, operands = node.func.id, node.args
        if name == "Symbol":
            return 64, 1
    else:
        raise ValueError("not a size")
    if name == "Pow":
        base, exponent = operands
        (bits, terms), power = _extent(base, deeper - 1), abs(_whole(exponent))
        if power > _LARGEST_DEGREE:
            raise ValueError("a large exponent")
        return bits * power, terms**power
    extents = [_extent(operand, deeper - 1) for operand in operands]
    if name in ("Mult", "Mul"):
        return sum(bits for bits, _ in extents), math.prod(terms for _, terms in extents)
    return max((bits for bits, _ in extents), default=1) + 1, sum(terms for _, terms in extents)


def _whole(node: ast.expr) -> int:
    """The value of a number, also as Integer(number); of a Rational the larger of its two."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.UnaryOp):
        return _whole(node.operand)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
        return max(abs(_whole(argument)) for argument in node.args)
    raise ValueError("an exponent that is not a number")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings that PyTorch prints and the tracebacks that it logs before it raises an error."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
