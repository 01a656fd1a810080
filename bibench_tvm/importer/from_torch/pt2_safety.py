"""What in a `.pt2` would run code or keep PyTorch busy without end; nothing here runs code from the file."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import logging
import math
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from bibench_tvm.cli.errors import first_line
from bibench_tvm.importer.imported import ImportFailed
from bibench_tvm.importer.limits import refuse_bombs

_MOST_NESTED = 100
_LARGEST = 1 << 64  # numbers of a program are of 64 bits
_LONGEST_SIZE = 2000  # characters of a size that is computed from others
_LARGEST_DEGREE = 8
_MOST_TERMS = 500  # of a size that is multiplied out, as sympy does
_SHOWN = 100  # characters of what a file holds that an error quotes
# The only operators that a `.pt2` may call: tensor arithmetic, nothing that opens files or loads code.
_SAFE_TARGET = re.compile(
    r"torch\.ops\.(aten|prims|torchvision|quantized_decomposed)\.(?!from_file)\w+(\.\w+)?"
    r"|torch\.ops\.higher_order\.(cond|map_impl|scan|while_loop|wrap_with_set_grad_enabled|wrap_with_autocast)"
    r"|torch\.sym_\w+|math\.\w+"
    r"|_operator\.(getitem|add|sub|mul|neg|floordiv|mod|truediv|pow|eq|ne|lt|le|gt|ge|and_|or_|not_)"
)
# Sizes are written as sympy prints them, for example Mul(Integer(2), Symbol('s77', integer=True)).
_SAFE_EXPRESSION = re.compile(
    r"(Symbol\('\w+'|(Integer|Rational|Add|Mul|Pow|Mod|PythonMod|FloorDiv|CleanDiv|CeilToInt|Max|Min)\("
    r"|(positive|integer|nonnegative|real)=(True|False)|[su]\d+|\d+|[-+*/(), ])*"
)


def refuse_unsafe_pt2(data: bytes, path: Path) -> None:
    """Refuse the content of a `.pt2` whose reading would run code from the file.

    `torch.export.load` unpickles with `weights_only=False`, loads compiled libraries, imports modules named
    by a tree spec, evaluates symbolic expressions and calls any function of `torch` that a node names. A
    program that holds plain tensors and tensor operators needs none of that.
    """

    def refuse(what: str) -> ImportFailed:
        return ImportFailed(
            f"{path} holds {what}, and reading that could run code from the file; export the model with "
            "plain tensors as parameters, buffers and inputs."
        )

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            refuse_bombs(archive, len(data), path)
            damaged = archive.testzip()
            if damaged is not None:
                raise ImportFailed(f"{path} is damaged: the checksum of {damaged} in it is wrong.")
            # PyTorch's own reader of archives ignores case and takes the first of two entries of one name.
            entries = [entry.lower() for entry in archive.namelist()]
            if len(set(entries)) < len(entries) or len({entry.partition("/")[0] for entry in entries}) > 1:
                raise refuse("two entries of one name, or more than one folder")
            for entry in archive.namelist():
                inside = entry.partition("/")[2].lower()
                if inside.startswith("data/aotinductor/"):
                    raise refuse("compiled libraries")
                if inside.startswith("data/constants/") and inside.endswith(".pt"):
                    raise refuse("pickled constants")
                if inside.startswith("data/") and inside.endswith("_config.json"):
                    for key, payload in _read_json(archive.read(entry))["config"].items():
                        if payload["use_pickle"] or not re.fullmatch(
                            r"(weight|tensor)_\d+", payload["path_name"]
                        ):
                            raise refuse(f"{key!r} as a pickled object")
                elif inside.startswith("data/sample_inputs/"):
                    try:
                        torch.load(io.BytesIO(archive.read(entry)), weights_only=True)
                    except Exception as error:
                        raise refuse("example inputs that are not plain tensors") from error
                elif inside.startswith("models/"):
                    _refuse_unsafe_graph(_read_json(archive.read(entry)), refuse)
            if not any(entry.endswith("/models/model.json") for entry in entries):
                raise ImportFailed(
                    f"{path} holds no torch.export program named 'model'; write it with torch.export.save."
                )
    except ImportFailed:
        raise
    except Exception as error:  # what is damaged fails anywhere
        raise ImportFailed(f"{path} is damaged or not a torch.export program: {first_line(error)}") from error


def _refuse_unsafe_graph(value: Any, refuse: Callable[[str], ImportFailed]) -> None:
    if isinstance(value, list):
        for item in value:
            _refuse_unsafe_graph(item, refuse)
    elif isinstance(value, dict):
        for key, item in value.items():
            text = item if isinstance(item, str) else ""
            called = key == "as_operator" or (key == "target" and "inputs" in value)
            if called and not _SAFE_TARGET.fullmatch(text):
                raise refuse(f"a call of {text[:_SHOWN] or type(item).__name__!r} (not a tensor operator)")
            if key == "expr_str" and not (_is_modest(text) and _SAFE_EXPRESSION.fullmatch(text)):
                raise refuse(f"the size {text[:_SHOWN]!r} (not plain arithmetic on plain sizes)")
            if key != "stack_trace" and ("default_factory" in text or "__enum__" in text):
                raise refuse("inputs or outputs in a container that names Python modules")
            _refuse_unsafe_graph(item, refuse)


def _read_json(content: bytes) -> Any:
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


def _is_modest(expression: str) -> bool:
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
