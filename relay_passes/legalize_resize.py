"""Resizing by arithmetic with integers.

TVM's own takes the place of a pixel by float32, to which 32-bit processors need functions of a compiler's
library, and which may be beside a whole number; an epsilon that it adds there is wrong for others. Shapes are
static, so that the place along an axis is a fraction (a * i + b) / d of whole numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import tvm
from tvm import relax, te, tirx, topi

from relay_passes.ir.rewrite import shape_of

_SPATIAL = {"NCHW": (2, 3), "NHWC": (1, 2), "NCDHW": (2, 3, 4), "NDHWC": (1, 2, 3)}


@dataclass(frozen=True)
class Places:
    """Where along an axis of `size` elements output i lies: at (a * i + b) / d."""

    size: int
    outputs: int
    a: int
    b: int
    d: int

    def nearest(self, rounding: str, i: Any) -> Any:
        """The index of the element. rounding: floor, ceil, round_prefer_floor, round_prefer_ceil or round,
        which takes halves up."""
        a, b, d = self.a, self.b, self.d
        if rounding == "floor":
            return self._inside(a, b, d, i)
        if rounding == "ceil":  # of whole numbers, the floor of the last fraction before the next
            return self._inside(a, b + d - 1, d, i)
        if rounding == "round_prefer_floor":
            return self._inside(2 * a, 2 * b + d - 1, 2 * d, i)
        return self._inside(2 * a, 2 * b + d, 2 * d, i)

    def between(self, i: Any, dtype: str) -> tuple[Any, Any, Any]:
        """(index, index of the next element, share of the next)."""
        shared = math.gcd(self.a, self.b, self.d)
        a, b, d = self.a // shared, self.b // shared, self.d // shared
        place = self._clamped(i * a + b, b, a * (self.outputs - 1) + b, (self.size - 1) * d)
        index = tirx.floordiv(place, d)
        share = tirx.floormod(place, d).astype(dtype) * tirx.const(1 / d, dtype)
        return index, te.min(index + 1, self.size - 1), share

    @property
    def unmoved(self) -> bool:
        return self.size == self.outputs and (self.a, self.b) == (self.d, 0)

    def _inside(self, a: int, b: int, d: int, i: Any) -> Any:
        """floor((a i + b) / d), or the nearest index."""
        shared = math.gcd(a, d)
        a, b, d = a // shared, b // shared, d // shared
        last = (a * (self.outputs - 1) + b) // d
        return self._clamped(tirx.floordiv(i * a + b, d), b // d, last, self.size - 1)

    @staticmethod
    def _clamped(value: Any, first: int, last: int, greatest: int) -> Any:
        """value: grows from first to last."""
        if first < 0:
            value = te.max(value, 0)
        return te.min(value, greatest) if last > greatest else value


def places(size: int, outputs: int, mode: str) -> Places | None:
    """mode: ONNX's coordinate_transformation_mode; None for one that is not known."""
    if mode in ("align_corners", "pytorch_half_pixel") and outputs == 1:
        return Places(size, outputs, 0, 0, 1)
    how = {
        "half_pixel": (2 * size, size - outputs, 2 * outputs),
        "pytorch_half_pixel": (2 * size, size - outputs, 2 * outputs),
        "asymmetric": (size, 0, outputs),
        "align_corners": (size - 1, 0, outputs - 1),
    }
    return Places(size, outputs, *how[mode]) if mode in how else None


def _resize(name: str, builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """By integers, or as TVM does where there is none."""
    attrs = call.attrs
    mode, rounding = str(attrs.coordinate_transformation_mode), str(attrs.rounding_method)
    axes = _SPATIAL.get(str(attrs.layout), ())
    sizes, outputs = shape_of(call.args[0]), [int(n) for n in call.args[1].values]
    found = {axis: places(sizes[axis], n, mode) for axis, n in zip(axes, outputs, strict=bool(axes))}
    along = {axis: place for axis, place in found.items() if place is not None}
    if not along or len(along) < len(found) or attrs.method not in ("nearest_neighbor", "linear"):
        return _OF_TVM[name](builder, call)
    if not rounding:
        rounding = "round" if mode == "align_corners" else "floor"
    moved = {axis: place for axis, place in along.items() if not place.unmoved}
    shape = [along[axis].outputs if axis in along else size for axis, size in enumerate(sizes)]
    compute = _nearest(moved, rounding) if attrs.method == "nearest_neighbor" else _linear(moved)

    def resize(data: te.Tensor) -> te.Tensor:
        return te.compute(shape, lambda *at: compute(data, at), name="resize", tag=topi.tag.INJECTIVE)

    return builder.call_te(resize, call.args[0], primfunc_name_hint=name)


def _nearest(moved: dict[int, Places], rounding: str) -> Callable[[te.Tensor, Any], Any]:
    def compute(data: te.Tensor, at: Any) -> Any:
        index = list(at)
        for axis, place in moved.items():
            index[axis] = place.nearest(rounding, at[axis].astype("int32"))
        return data(*index)

    return compute


def _linear(moved: dict[int, Places]) -> Callable[[te.Tensor, Any], Any]:
    def compute(data: te.Tensor, at: Any) -> Any:
        dtype = "float64" if data.dtype == "float64" else "float32"
        found = {axis: place.between(at[axis].astype("int32"), dtype) for axis, place in moved.items()}

        def value(index: list[Any], axes: list[int]) -> Any:
            if not axes:
                return data(*index).astype(dtype)
            axis, *rest = axes
            here, there, share = found[axis]
            one = tirx.const(1, dtype)
            near = value([*index[:axis], here, *index[axis + 1 :]], rest)
            far = value([*index[:axis], there, *index[axis + 1 :]], rest)
            return near * (one - share) + far * share

        return value(list(at), list(moved)).astype(data.dtype)

    return compute


_NAMES = ("resize2d", "resize3d")
_OF_TVM = {name: tvm.ir.Op.get(f"relax.image.{name}").get_attr("FLegalize") for name in _NAMES}
RESIZES = {f"relax.image.{name}": partial(_resize, name) for name in _NAMES}
