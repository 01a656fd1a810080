"""What a repair asks of the operands of a node, and what a repair is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from tvm import relax

Repair = Callable[[list[Any], dict[str, Any], int], relax.Expr | None]


def number_of(expr: relax.Expr | None) -> float | None:
    """The value of a constant with one element, else None."""
    if not isinstance(expr, tvm.ir.GenericConst) or expr.value.numpy().size != 1:
        return None
    return expr.value.numpy().item()


def constant(expr: relax.Expr, what: str) -> np.ndarray:
    if not isinstance(expr, tvm.ir.GenericConst):
        raise NotImplementedError(f"{what} is computed from the input; it has to be a constant.")
    return expr.value.numpy()


def shape_of(x: relax.Expr) -> tuple[int, ...]:
    return tuple(int(size) for size in x.ty.shape)


def dtype_of(x: relax.Expr) -> str:
    return str(x.ty.dtype.dtype)
