"""Sequences of ONNX whose tensors are known by their place are computed as by ONNX Runtime."""

import numpy as np
import pytest

from bibench_tvm import compile_model
from bibench_tvm.importer import import_model
from tests.bibench_tvm.importer.from_onnx.test_onnx_operators import save

FIRST, SECOND, LAST = np.int64(0), np.int64(1), np.int64(-1)
BACKWARDS = "a = SequenceAt(s, i) b = SequenceAt(s, j) y = Concat<axis=1>(b, a)"
CASES = {
    "halves": (f"s = SplitToSequence<axis=1>(x, w) {BACKWARDS}", dict(w=np.int64(4), i=FIRST, j=SECOND)),
    "a last one that is shorter": (
        f"s = SplitToSequence<axis=-2>(x, w) {BACKWARDS}", dict(w=np.int64(3), i=FIRST, j=LAST),
    ),
    "lengths": (
        f"s = SplitToSequence<axis=1>(x, w) {BACKWARDS}", dict(w=np.array([2, 5, 1]), i=SECOND, j=LAST),
    ),
    "lengths that are computed": (
        "p = Shape<start=1, end=2>(x) h = Div(p, two) w = Concat<axis=0>(h, h) "
        f"s = SplitToSequence<axis=1>(x, w) {BACKWARDS}",
        dict(two=np.array([2]), i=FIRST, j=SECOND),
    ),
    "one by one": (f"s = SplitToSequence<axis=2>(x) {BACKWARDS}", dict(i=FIRST, j=LAST)),
    "without their axis": (f"s = SplitToSequence<axis=2, keepdims=0>(x) {BACKWARDS}", dict(i=FIRST, j=LAST)),
    "of tensors": (f"r = Relu(x) s = SequenceConstruct(x, r) {BACKWARDS}", dict(i=FIRST, j=SECOND)),
    "put together": (
        "s = SplitToSequence<axis=1>(x, w) y = ConcatFromSequence<axis=2>(s)", dict(w=np.int64(4)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("case", CASES)
def test_parts(case, opset, tmp_path, assert_same):
    body, weights = CASES[case]
    path = save(tmp_path / "model.onnx", body, (2, 8, 3), opset=17 if "start" in body else opset, **weights)
    x = np.random.default_rng(0).normal(size=(2, 8, 3)).astype(np.float32)
    assert_same(import_model(path), x)


def test_a_layer_between_sequences_is_verified(tmp_path):
    body = f"s = SplitToSequence<axis=1>(x, h) {BACKWARDS.replace('y', 't')} c = Sign(t) y = MatMul(c, w)"
    weights = np.sign(np.random.default_rng(0).normal(size=(3, 5))).astype(np.float32)
    path = save(tmp_path / "model.onnx", body, (2, 8, 3), h=np.int64(4), i=FIRST, j=SECOND, w=weights)
    artifact = compile_model(path, out=tmp_path / "made", verify=2)
    assert artifact.manifest["verification"]["passed"] is True
    assert [layer["binarized"] for layer in artifact.manifest["layers"]] == [True]
