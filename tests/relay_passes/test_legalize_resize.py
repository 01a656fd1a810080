"""Resizing by whole numbers gives what fractions give, and TVM's own where floats are near enough."""

import math
from fractions import Fraction

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax

from relay_passes.legalize_resize import RESIZES, places

MODES = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]
ROUNDINGS = {
    "floor": math.floor,
    "ceil": math.ceil,
    "round_prefer_floor": lambda place: math.ceil(place - Fraction(1, 2)),
    "round_prefer_ceil": lambda place: math.floor(place + Fraction(1, 2)),
    "round": lambda place: math.floor(place + Fraction(1, 2)),
}
EXTENT = st.integers(1, 7)


def place_of(i: int, size: int, outputs: int, mode: str) -> Fraction:
    """ONNX's formulas."""
    if outputs == 1 and mode in ("align_corners", "pytorch_half_pixel"):
        return Fraction(0)
    if mode == "asymmetric":
        return Fraction(i * size, outputs)
    if mode == "align_corners":
        return Fraction(i * (size - 1), outputs - 1)
    return (i + Fraction(1, 2)) * Fraction(size, outputs) - Fraction(1, 2)


def value_of(expression: object) -> float:
    """Of constants alone, which TVM folds where they meet."""
    assert isinstance(expression, tvm.tirx.IntImm | tvm.tirx.FloatImm | int), expression
    return getattr(expression, "value", expression)


@given(size=st.integers(1, 99), outputs=st.integers(1, 99), mode=st.sampled_from(MODES), data=st.data())
@settings(deadline=None)
def test_places(size: int, outputs: int, mode: str, data: st.DataObject) -> None:
    found = places(size, outputs, mode)
    assert found is not None
    i = data.draw(st.integers(0, outputs - 1))
    place, at = place_of(i, size, outputs, mode), tvm.tirx.const(i, "int32")
    for name, rounded in ROUNDINGS.items():
        assert value_of(found.nearest(name, at)) == min(max(rounded(place), 0), size - 1), name
    index, following, share = map(value_of, found.between(at, "float64"))
    place = min(max(place, Fraction(0)), Fraction(size - 1))
    assert index == math.floor(place) and following == min(index + 1, size - 1)
    assert share == pytest.approx(float(place - index))


def resized(
    x: np.ndarray, outputs: tuple[int, ...], layout: str, method: str, mode: str, rounding: str, ours: bool
) -> np.ndarray:
    builder = relax.BlockBuilder()
    var = relax.Var("x", relax.TensorType(x.shape, x.dtype.name))
    make = relax.op.image.resize2d if len(outputs) == 2 else relax.op.image.resize3d
    with builder.function("main", [var]):
        options = dict(coordinate_transformation_mode=mode, rounding_method=rounding)
        builder.emit_func_output(builder.emit(make(var, outputs, layout=layout, method=method, **options)))
    module = relax.transform.LegalizeOps(RESIZES if ours else {})(builder.get())
    machine = relax.VirtualMachine(tvm.compile(module, target=tvm.target.Target("llvm")), tvm.cpu())
    return machine["main"](tvm.runtime.tensor(x)).numpy()


@given(
    spatial=st.lists(st.tuples(EXTENT, st.integers(2, 9)), min_size=2, max_size=3),
    last=st.booleans(),
    # Of the nearest others are beside TVM's by what float32 rounds.
    method=st.sampled_from([("nearest_neighbor", "floor"), ("linear", "round")]),
    mode=st.sampled_from(MODES),
)
@settings(max_examples=15, deadline=None)
def test_as_tvm(spatial: list[tuple[int, int]], last: bool, method: tuple[str, str], mode: str) -> None:
    sizes, outputs = zip(*spatial, strict=True)
    letters = "DHW"[-len(spatial) :]
    layout, shape = ("N" + letters + "C", (2, *sizes, 3)) if last else ("NC" + letters, (2, 3, *sizes))
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    ours, theirs = (resized(x, outputs, layout, method[0], mode, method[1], which) for which in (True, False))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_integers_stay_what_they_are() -> None:
    x = np.array([[[[2**24 + 1, 2**30 + 1]]]], np.int32)
    ours = resized(x, (2, 4), "NCHW", "nearest_neighbor", "half_pixel", "round", True)
    assert np.array_equal(ours, x.repeat(2, 2).repeat(2, 3))


@pytest.mark.parametrize("method", ["cubic", "linear"])
def test_what_is_not_known_is_left_to_tvm(method: str) -> None:
    x = np.random.default_rng(0).standard_normal((1, 2, 4, 5)).astype(np.float32)
    mode = "half_pixel" if method == "cubic" else "tf_half_pixel_for_nn"
    ours, theirs = (resized(x, (7, 3), "NCHW", method, mode, "round", which) for which in (True, False))
    assert np.array_equal(ours, theirs)
