"""Hand-built ONNX graphs, one operator at a time: TVM computes what onnxruntime computes."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx import parser as onnx_parser

from bibench_tvm import compile_model
from bibench_tvm.importer import ImportFailed, import_model

RNG = np.random.default_rng(0)


def save(path, body, x=(4, 3, 9, 11), opset=17, dtype="float", **weights):
    """Write a graph of `body` (ONNX's text syntax) from x to y."""
    shape = ",".join(map(str, x))
    model = onnx_parser.parse_model(
        f'<ir_version: 8, opset_import: ["": {opset}]> g ({dtype}[{shape}] x) => (y) {{ {body} }}'
    )
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items())
    # The type of y is inferred; where ONNX cannot, it is that of x.
    del model.graph.output[:]
    model.graph.output.append(onnx.ValueInfoProto(name="y"))
    inferred = onnx.shape_inference.infer_shapes(model)
    if not inferred.graph.output[0].type.tensor_type.HasField("shape"):
        inferred.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, x))
    onnx.save(inferred, path)
    return path


def w(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


IMAGE = (4, 3, 9, 11)
CASES = {
    "conv 3": ("y = Conv<pads=[1,1,1,1]>(x, w, b)", IMAGE, dict(w=w(20, 3, 3, 3), b=w(20))),
    "conv 20 strided": (
        "y = Conv<strides=[2,2], pads=[1,1,1,1]>(x, w)", (4, 20, 9, 11), dict(w=w(96, 20, 3, 3)),
    ),
    "conv 96 dilated": (
        "y = Conv<dilations=[2,2], pads=[2,2,2,2]>(x, w)", (1, 96, 9, 11), dict(w=w(130, 96, 3, 3)),
    ),
    "conv 130": ("y = Conv(x, w)", (1, 130, 5, 6), dict(w=w(20, 130, 1, 1))),
    "conv grouped": ("y = Conv<group=2>(x, w)", (4, 20, 9, 11), dict(w=w(6, 10, 3, 3))),
    "conv depthwise": ("y = Conv<group=20, pads=[1,1,1,1]>(x, w)", (4, 20, 9, 11), dict(w=w(20, 1, 3, 3))),
    "conv multiplied": ("y = Conv<group=3>(x, w)", IMAGE, dict(w=w(6, 1, 3, 3))),
    "conv asymmetric": ("y = Conv<pads=[0,1,2,3], strides=[2,1]>(x, w)", IMAGE, dict(w=w(5, 3, 3, 2))),
    "conv same upper": (
        'y = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x, w)', (1, 3, 10, 11), dict(w=w(5, 3, 3, 4)),
    ),
    "conv same lower": (
        'y = Conv<auto_pad="SAME_LOWER", strides=[2,3]>(x, w)', (1, 3, 10, 11), dict(w=w(5, 3, 4, 4)),
    ),
    "conv same dilated": (
        'y = Conv<auto_pad="SAME_UPPER", dilations=[2,2], kernel_shape=[2,3]>(x, w)',
        IMAGE, dict(w=w(5, 3, 2, 3)),
    ),
    "conv valid": ('y = Conv<auto_pad="VALID">(x, w)', IMAGE, dict(w=w(5, 3, 3, 3))),
    "conv 1d": (
        "y = Conv<pads=[2,1], strides=[2], group=2>(x, w, b)", (4, 6, 13), dict(w=w(8, 3, 3), b=w(8)),
    ),
    "conv 1d same": ('y = Conv<auto_pad="SAME_LOWER">(x, w)', (4, 6, 13), dict(w=w(8, 6, 4))),
    "conv 3d": ("y = Conv<pads=[1,0,1,0,1,1]>(x, w)", (1, 2, 5, 6, 7), dict(w=w(4, 2, 3, 2, 3))),
    "conv after pad": (
        "p = Pad(x, pads) y = Conv(p, w)",
        IMAGE, dict(w=w(5, 3, 3, 3), pads=np.array([0, 0, 1, 0, 0, 0, 2, 1])),
    ),
    "pad with a value": (
        "y = Pad(x, pads, v)", IMAGE, dict(pads=np.array([0, 0, 1, 0, 0, 0, 2, 1]), v=np.float32(-1)),
    ),
    "pad reflect": ('y = Pad<mode="reflect">(x, pads)', IMAGE, dict(pads=np.array([0, 0, 1, 0, 0, 0, 2, 1]))),
    "pad edge": ('y = Pad<mode="edge">(x, pads)', IMAGE, dict(pads=np.array([0, 0, 1, 0, 0, 0, 2, 1]))),
    "pad negative": ("y = Pad(x, pads)", IMAGE, dict(pads=np.array([0, 0, -1, 0, 0, 0, 2, -1]))),
    "conv transposed": (
        "y = ConvTranspose<strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]>(x, w, b)",
        IMAGE, dict(w=w(3, 5, 3, 3), b=w(5)),
    ),
    "conv transposed grouped": ("y = ConvTranspose<group=3>(x, w)", IMAGE, dict(w=w(3, 2, 3, 3))),
    "conv transposed asymmetric": ("y = ConvTranspose<pads=[0,1,2,1]>(x, w)", IMAGE, dict(w=w(3, 2, 3, 3))),
    "conv transposed same": (
        'y = ConvTranspose<auto_pad="SAME_UPPER", strides=[2,2]>(x, w)', IMAGE, dict(w=w(3, 2, 3, 3)),
    ),
    "conv transposed to a shape": (
        "y = ConvTranspose<strides=[2,2], output_shape=[18,22]>(x, w)", IMAGE, dict(w=w(3, 2, 3, 3)),
    ),
    "conv transposed 1d": ("y = ConvTranspose<strides=[2]>(x, w)", (2, 3, 7), dict(w=w(3, 2, 3))),
    "gemm": ("y = Gemm(x, w, b)", (4, 7), dict(w=w(7, 5), b=w(5))),
    "gemm transposed": ("y = Gemm<transB=1, alpha=0.5, beta=2.0>(x, w, b)", (4, 7), dict(w=w(5, 7), b=w(5))),
    "gemm both transposed": ("y = Gemm<transA=1, transB=1>(x, w)", (7, 4), dict(w=w(5, 7))),
    "gemm column bias": ("y = Gemm(x, w, b)", (4, 7), dict(w=w(7, 5), b=w(4, 1))),
    "matmul 2": ("y = MatMul(x, w)", (4, 7), dict(w=w(7, 5))),
    "matmul 3": ("y = MatMul(x, w)", (2, 4, 7), dict(w=w(7, 5))),
    "matmul 4": ("y = MatMul(x, w)", (2, 3, 4, 7), dict(w=w(3, 7, 5))),
    "matmul vector": ("y = MatMul(x, w)", (2, 4, 7), dict(w=w(7))),
    "matmul of activations": ("t = Transpose<perm=[0,2,1]>(x) y = MatMul(x, t)", (2, 4, 7), {}),
    "batch norm": (
        "y = BatchNormalization<epsilon=0.01>(x, s, b, m, v)",
        IMAGE, dict(s=w(3), b=w(3), m=w(3), v=np.abs(w(3)) + 0.5),
    ),
    "batch norm of two": (
        "y = BatchNormalization(x, s, b, m, v)", (4, 3), dict(s=w(3), b=w(3), m=w(3), v=np.abs(w(3)) + 0.5),
    ),
    "sign": ("y = Sign(x)", IMAGE, {}),
    "where greater or equal": (
        "c = GreaterOrEqual(x, z) y = Where(c, p, n)", IMAGE,
        dict(z=np.float32(0), p=np.float32(1), n=np.float32(-1)),
    ),
    "where greater": ("c = Greater(x, z) y = Where(c, p, x)", IMAGE, dict(z=w(1, 3, 1, 1), p=w(3, 1, 1))),
    "where less": ("c = Less(x, z) y = Where(c, n, p)", IMAGE, dict(z=np.float32(0), p=w(1), n=w(1))),
    "where less or equal": ("c = LessOrEqual(z, x) y = Where(c, p, n)", IMAGE, dict(z=w(1), p=w(1), n=w(1))),
    "where not": ("c = Less(x, z) d = Not(c) y = Where(d, p, n)", IMAGE, dict(z=w(1), p=w(1), n=w(1))),
    "cast of a comparison": (
        "c = GreaterOrEqual(x, z) f = Cast<to=1>(c) t = Mul(f, two) y = Sub(t, one)", IMAGE,
        dict(z=np.float32(0), two=np.float32(2), one=np.float32(1)),
    ),
    "clip": ("y = Clip(x, l, h)", IMAGE, dict(l=np.float32(-0.5), h=np.float32(0.7))),
    "clip with crossed bounds": ("y = Clip(x, l, h)", IMAGE, dict(l=np.float32(0.7), h=np.float32(-0.5))),
    "clip below": ("y = Clip(x, l)", IMAGE, dict(l=np.float32(-0.5))),
    "clip above": ("y = Clip(x, , h)", IMAGE, dict(h=np.float32(0.5))),
    "quantise pair": (
        "q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)",
        IMAGE, dict(s=np.float32(0.1), z=np.int8(3)),
    ),
    "quantise pair of two values": (
        "c = Clip(x, l, h) q = QuantizeLinear(c, s, z) y = DequantizeLinear(q, s, z)", IMAGE,
        dict(s=np.float32(2), z=np.int8(0), l=np.float32(-1), h=np.float32(1)),
    ),
    "quantise per channel": (
        "q = QuantizeLinear<axis=1>(x, s, z) y = DequantizeLinear<axis=1>(q, s, z)", IMAGE,
        dict(s=np.abs(w(3)) + 0.01, z=np.zeros(3, np.uint8)),
    ),
    "identity": ("a = Identity(x) y = Relu(a)", IMAGE, {}),
    "identity to the output": ("y = Identity(x)", IMAGE, {}),
    "flatten": ("y = Flatten<axis=2>(x)", IMAGE, {}),
    "reshape": ("y = Reshape(x, s)", IMAGE, dict(s=np.array([0, -1, 11]))),
    "shape chain": (
        "s = Shape(x) b = Gather<axis=0>(s, zero) u = Unsqueeze(b, axes) c = Concat<axis=0>(u, rest) y = "
        "Reshape(x, c)",
        IMAGE, dict(zero=np.int64(0), axes=np.array([0]), rest=np.array([-1])),
    ),
    "expand": ("y = Expand(x, s)", (4, 1, 5), dict(s=np.array([4, 3, 5]))),
    "transpose": ("y = Transpose<perm=[0,2,3,1]>(x)", IMAGE, {}),
    "squeeze": ("u = Unsqueeze(x, a) y = Squeeze(u, a)", IMAGE, dict(a=np.array([2]))),
    "slice": ("y = Slice(x, s, e, a, t)", IMAGE, dict(
        s=np.array([1, -1]), e=np.array([8, -12]), a=np.array([2, 3]), t=np.array([2, -2])
    )),
    "split": ("a, b = Split<axis=1>(x, n) y = Concat<axis=1>(b, a)", IMAGE, dict(n=np.array([1, 2]))),
    "concat": ("n = Neg(x) y = Concat<axis=1>(x, n, c)", IMAGE, dict(c=w(4, 1, 9, 11))),
    "gather": ("y = Gather<axis=1>(x, i)", IMAGE, dict(i=np.array([2, 0, -1]))),
    "global average pool": ("y = GlobalAveragePool(x)", IMAGE, {}),
    "global max pool": ("y = GlobalMaxPool(x)", IMAGE, {}),
    "max pool": ("y = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x)", IMAGE, {}),
    "max pool asymmetric": ("y = MaxPool<kernel_shape=[2,3], pads=[0,1,1,0]>(x)", IMAGE, {}),
    "max pool ceil": ("y = MaxPool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>(x)", IMAGE, {}),
    "max pool same": (
        'y = MaxPool<kernel_shape=[3,2], strides=[2,2], auto_pad="SAME_UPPER">(x)', (1, 3, 10, 12), {},
    ),
    "max pool 1d": ("y = MaxPool<kernel_shape=[3], strides=[2]>(x)", (2, 3, 9), {}),
    "average pool": ("y = AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x)", IMAGE, {}),
    "average pool with padding": (
        "y = AveragePool<kernel_shape=[3,3], pads=[0,1,1,0], count_include_pad=1>(x)", IMAGE, {},
    ),
    "average pool asymmetric": ("y = AveragePool<kernel_shape=[3,3], pads=[0,1,2,0]>(x)", IMAGE, {}),
    "average pool same": (
        'y = AveragePool<kernel_shape=[3,3], strides=[2,2], auto_pad="SAME_LOWER">(x)', (1, 3, 10, 12), {},
    ),
    "average pool ceil": (
        "y = AveragePool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>(x)", (1, 3, 8, 10), {},
    ),
    "average pool 1d": ("y = AveragePool<kernel_shape=[3], strides=[2], pads=[1,0]>(x)", (2, 3, 9), {}),
    "lp pool": ("y = LpPool<kernel_shape=[2,2], p=2>(x)", IMAGE, {}),
    "reduce mean": ("y = ReduceMean<axes=[2,3], keepdims=0>(x)", IMAGE, {}),
    "reduce mean of all": ("y = ReduceMean(x)", IMAGE, {}),
    "reduce sum": ("y = ReduceSum<keepdims=1>(x, a)", IMAGE, dict(a=np.array([1]))),
    "reduce max": ("y = ReduceMax<axes=[-1]>(x)", IMAGE, {}),
    "reduce l1": ("y = ReduceL1<axes=[1]>(x)", IMAGE, {}),
    "softmax": ("y = Softmax<axis=1>(x)", IMAGE, {}),
    "prelu": ("y = PRelu(x, s)", IMAGE, dict(s=w(3, 1, 1))),
    "prelu shared": ("y = PRelu(x, s)", IMAGE, dict(s=w(1))),
    "leaky relu": ("y = LeakyRelu<alpha=0.2>(x)", IMAGE, {}),
    "hard sigmoid": ("y = HardSigmoid<alpha=0.3>(x)", IMAGE, {}),
    "hard swish": ("y = HardSwish(x)", IMAGE, {}),
    "elu": ("y = Elu(x)", IMAGE, {}),
    "erf": ("y = Erf(x)", IMAGE, {}),
    "layer norm": ("y = LayerNormalization<axis=-1>(x, s, b)", IMAGE, dict(s=w(11), b=w(11))),
    "instance norm": ("y = InstanceNormalization(x, s, b)", IMAGE, dict(s=w(3), b=w(3))),
    "resize": (
        'y = Resize<mode="nearest">(x, , s)', IMAGE, dict(s=np.array([1, 1, 2, 2], np.float32)),
    ),
    "resize linear": ('y = Resize<mode="linear">(x, , s)', IMAGE, dict(s=np.array([1, 1, 2, 2], np.float32))),
    "arithmetic": (
        "a = Abs(x) b = Add(a, c) s = Sqrt(b) d = Div(x, s) e = Pow(d, two) y = Sub(e, x)", IMAGE,
        dict(c=np.float32(1), two=np.float32(2)),
    ),
    "max min": ("a = Max(x, l) y = Min(a, h, x)", IMAGE, dict(l=w(1), h=w(3, 1, 1))),
    "depth to space": ("y = DepthToSpace<blocksize=2>(x)", (1, 8, 3, 4), {}),
    "dropout": ("y = Dropout(x)", IMAGE, {}),
    "argmax": ("y = ArgMax<axis=1, keepdims=0>(x)", IMAGE, {}),
    "round": ("y = Round(x)", IMAGE, {}),
    "tile": ("y = Tile(x, r)", IMAGE, dict(r=np.array([1, 2, 1, 3]))),
    "sum": ("y = Sum(x, a, x)", IMAGE, dict(a=w(3, 1, 1))),
    "einsum": ('y = Einsum<equation="bchw,bdhw->bcd">(x, x)', IMAGE, {}),
    "einsum of weights": ('y = Einsum<equation="bchw, cd -> bdwh">(x, w)', IMAGE, dict(w=w(3, 5))),
    "einsum of weights first": ('y = Einsum<equation="dc,bchw->bhdw">(w, x)', IMAGE, dict(w=w(5, 3))),
    "einsum without an arrow": ('y = Einsum<equation="abcd,bd">(x, w)', IMAGE, dict(w=w(3, 11))),
    "einsum with an ellipsis": ('y = Einsum<equation="...w,ow->...o">(x, w)', IMAGE, dict(w=w(5, 11))),
    "einsum of an ellipsis in the middle": (
        'y = Einsum<equation="b...w,b...v->...wv">(x, w)', IMAGE, dict(w=w(4, 3, 1, 2)),
    ),
    "einsum of an ellipsis without an arrow": (
        'y = Einsum<equation="...hw,wo">(x, w)', IMAGE, dict(w=w(11, 2)),
    ),
    "einsum of an axis of 1": ('y = Einsum<equation="bchw,cw->bhw">(x, w)', IMAGE, dict(w=w(3, 1))),
    "einsum of a summed axis of 1": ('y = Einsum<equation="bc,cd->bd">(x, w)', (2, 1), dict(w=w(3, 4))),
    "einsum of all": ('y = Einsum<equation="bchw,bchw->">(x, x)', IMAGE, {}),
    "einsum of three": (
        'y = Einsum<equation="bchw,cd,wv->bdhv">(x, w, v)', IMAGE, dict(w=w(3, 5), v=w(11, 2)),
    ),
    "einsum of a diagonal": ('y = Einsum<equation="bchw,bcww->bch">(x, x)', (2, 3, 4, 4), {}),
    "einsum of one": ('y = Einsum<equation="bchw->bw">(x)', IMAGE, {}),
    "outer einsum": ('y = Einsum<equation="bchw,c->bchw">(x, w)', IMAGE, dict(w=w(3))),
    "a number put where a mask is true": (
        "m = Greater(x, z) p = NonZero(m) i = Transpose<perm=[1,0]>(p) f = Reshape(m, l) k = Cast<to=7>(f) "
        "n = ReduceSum(k) e = Expand(v, n) u = Reshape(e, l) y = ScatterND(x, i, u)",
        IMAGE,
        dict(z=np.float32(0), v=np.float32(1.5), l=np.array([-1])),
    ),
    "cumulative sum": ("y = CumSum<reverse=1>(x, a)", IMAGE, dict(a=np.int64(1))),
    "pad of axes": (
        "y = Pad(x, p, , a)", IMAGE, dict(p=np.array([1, 2, 0, 1]), a=np.array([-1, 2]), opset=18),
    ),
    "pad around": ('y = Pad<mode="wrap">(x, p)', IMAGE, dict(p=np.array([0, 0, 1, 2, 0, 0, 3, 1]), opset=19)),
    "clip of opset 6": ("y = Clip<min=-0.5, max=0.5>(x)", IMAGE, dict(opset=9)),
    "pad of opset 2": ("y = Pad<pads=[0,0,1,0,0,0,2,1], value=1.5>(x)", IMAGE, dict(opset=9)),
    "reduce mean of opset 18": (
        "y = ReduceMean<keepdims=0>(x, a)", IMAGE, dict(a=np.array([2, 3]), opset=18),
    ),
    "squeeze of opset 9": ("u = Unsqueeze<axes=[2]>(x) y = Squeeze<axes=[2]>(u)", IMAGE, dict(opset=9)),
    "softmax of opset 9": ("y = Softmax<axis=1>(x)", IMAGE, dict(opset=9)),
    "batch norm of opset 9": (
        "y = BatchNormalization(x, s, b, m, v)", IMAGE,
        dict(s=w(3), b=w(3), m=w(3), v=np.abs(w(3)) + 0.5, opset=9),
    ),
    "gelu of opset 20": ("y = Gelu(x)", IMAGE, dict(opset=20)),
    "group norm of opset 21": (
        "y = GroupNormalization<num_groups=2>(x, s, b)", (2, 6, 5, 5), dict(s=w(6), b=w(6), opset=21),
    ),
    "mish, defined by other operators": ("y = Mish(x)", IMAGE, dict(opset=18)),
    "celu": ("y = Celu<alpha=0.7>(x)", IMAGE, {}),
    "mean variance normalization": ("y = MeanVarianceNormalization(x)", IMAGE, {}),
    "rms normalization of opset 23": ("y = RMSNormalization(x, s)", IMAGE, dict(s=w(11), opset=23)),
    "constants": (
        "c = Constant<value = float[3,1,1] {1.0, -2.0, 0.5}>() d = Constant<value_float=0.25>() m = Mul(x, "
        "c) y = Add(m, d)",
        IMAGE, {},
    ),
    "conv by sign of weights": (
        "s = Sign(w) b = Mul(s, a) g = GreaterOrEqual(x, z) f = Where(g, p, n) y = Conv(f, b)", IMAGE,
        dict(w=w(5, 3, 3, 3), a=w(5, 1, 1, 1), z=np.float32(0), p=np.float32(1), n=np.float32(-1)),
    ),
    "conv of quantised weights": (
        "q = QuantizeLinear(w, s, z) d = DequantizeLinear(q, s, z) y = Conv(x, d)", IMAGE,
        dict(w=w(5, 3, 3, 3), s=np.float32(0.1), z=np.int8(0)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_operator(case, tmp_path, assert_same):
    body, shape, weights = CASES[case]
    path = save(tmp_path / "m.onnx", body, shape, **weights)
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    assert_same(import_model(path), x)


LISTED = {
    "einsum": 1, "einsum with an ellipsis": 1, "einsum of all": 1, "einsum of three": 2,
    "einsum of a diagonal": 0, "cumulative sum": 0,
}  # fmt: skip


@pytest.mark.parametrize("case", LISTED)
def test_products_are_layers_and_what_tvm_has_as_a_loop_nest_is_compiled(case, tmp_path):
    body, shape, weights = CASES[case]
    path = save(tmp_path / "m.onnx", body, shape, **weights)
    manifest = compile_model(path, out=tmp_path / "made", verify=2).manifest
    assert manifest["verification"]["passed"] is True
    assert len(manifest["layers"]) == LISTED[case]


@pytest.mark.parametrize("turned", ["", "transA=1, "])
def test_a_product_that_is_scaled_reads_what_the_source_reads(turned, tmp_path):
    """Of three values: a scale of the operand would be in its planes of bits."""
    body = f"r = Round(x) c = Clip(r, l, h) y = Gemm<{turned}transB=1, alpha=2.0, beta=0.5>(c, w, b)"
    weights = dict(w=np.sign(w(5, 12)), b=w(5), l=np.float32(-1), h=np.float32(1))
    path = save(tmp_path / "m.onnx", body, (12, 4) if turned else (4, 12), **weights)
    manifest = compile_model(path, out=tmp_path / "made", verify=2).manifest
    assert manifest["verification"]["passed"] is True, manifest["verification"]["reason"]
    assert [layer["binarized"] for layer in manifest["layers"]] == [True]


def test_a_loop_nest_before_a_layer_is_named(tmp_path):
    body = 's = Einsum<equation="bchw->bw">(x) y = MatMul(s, w)'
    path = save(tmp_path / "m.onnx", body, w=np.sign(w(11, 5)))
    [layer] = compile_model(path, out=tmp_path / "made").manifest["layers"]
    assert "it comes from einsum" in layer["reason"]


def test_what_a_converter_ignores_is_refused(tmp_path):
    path = save(tmp_path / "m.onnx", "y = LpPool<kernel_shape=[2,2], ceil_mode=1>(x)", opset=18)
    with pytest.raises(ImportFailed, match=r"operator LpPool \(node 'y'\).*ceil_mode"):
        import_model(path)
