"""The operators that stand between what is imported and what is a kernel, and their typed attributes.

All are channels last. Images are [N, H, W, C]; weights are [O, KH, KW, C / groups]. A tensor of lower rank is
read as an image with leading extents of 1.

    bibench.convolution(x, w)             float32 -> float32
    bibench.matmul(x, w)                  float32 [.., M, K], [N, K] constant -> float32
    bibench.product(x, y)                 float32, two activations
    bibench.transposed_convolution(x, w)  the same, as PyTorch's transposed convolutions; w [O, KH, KW, C]
    bibench.named(y)                      y, which a layer without an operator of ours computed
    bibench.pool(x)                       the maximum or average of windows
    bibench.normalize(x)                  rows less their mean, divided by their deviation
    bibench.softmax(x)                    of rows
    bibench.pack(x)                       bool, or float32 with a quantizer -> words (schedules/parts/bits.py)
    bibench.binary_convolution(words, w)  words, int8 +-1 -> int32 dot products
    bibench.int8_convolution(words, w)    words of bytes, int8 -> int32 dot products
    bibench.border(table, rows, columns)  constants -> float32 [OH, OW, O], table[rows][:, columns]: what
                                          depends on how near to a border a pixel lies
    bibench.sign_sums(words)              what each pixel's -1 and +1 add up to, int32 [N, H, W, 1]
    bibench.binary_product(words, words, *sums)  [.., M, K], [.., N, K] -> int32 [.., M, N]; see BinaryProduct

`call` is the one way from attributes to a call, `attributes_of` the one way back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import tvm
from tvm import relax

from schedules.geometry import Convolution
from schedules.kernels.normalization import Normalization
from schedules.kernels.pooling import Pooling
from schedules.kernels.softmax import Softmax
from schedules.parts.bits import Packing


@dataclass(frozen=True, kw_only=True)
class Named:
    """name: of the layer, as a user knows it."""

    name: str


@dataclass(frozen=True, kw_only=True)
class Product(Named):
    """turned: whether it is the transpose of the source, whose operands are these in the other order."""

    turned: bool = False


@dataclass(frozen=True, kw_only=True)
class Contraction(Named):
    """Sums of products: a convolution, or a matrix product."""

    op: str  # conv2d, conv1d or linear
    conv: Convolution
    rank: int = 4  # of what goes in and comes out
    half: bool = False  # whether a float layer is computed in float16

    @property
    def out_shape(self) -> tuple[int, ...]:
        return self.conv.out_shape[4 - self.rank :]


@dataclass(frozen=True, kw_only=True)
class Transposed(Named):
    """A transposed convolution without groups and dilation.

    padding: rows and columns that are cut off, top, left, bottom, right; below 0 where some are put there."""

    op: str  # conv2d_transpose or conv1d_transpose
    batch: int
    height: int
    width: int
    channels: int
    out_channels: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int, int, int]

    @property
    def out_shape(self) -> tuple[int, int, int, int]:
        top, left, bottom, right = self.padding
        height = (self.height - 1) * self.strides[0] + self.kernel[0] - top - bottom
        width = (self.width - 1) * self.strides[1] + self.kernel[1] - left - right
        return self.batch, height, width, self.out_channels


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Which pixels of a layer's output these are: start + i * step, some of them outside it.

    last: where its last row and column of weights are among those of the layer; the others are each `step`
    after the next."""

    start: tuple[int, int]
    step: tuple[int, int]
    last: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class PackedContraction(Contraction):
    packing: Packing  # of the activations; of both sides where both are activations


@dataclass(frozen=True, kw_only=True)
class BinaryConvolution(PackedContraction):
    """Of bits, whose values are -1 and +1, or 0 and 1.

    levels: what -1 and +1 stand for in the source, where that is not -a and a. part: of an operand that is a
    sum of two-valued ones, the two values of this one, which `plane` counts from 1. of_input: whether its
    weights are all +1, and none of the layer's: it adds up the input for weights of alpha s + beta.
    weight_plane: of weights that are sums of several planes of signs, which one these are, from 1."""

    zero_one: bool = False
    levels: tuple[float, float] | None = None
    of_input: bool = False
    phase: Phase | None = None  # of a transposed convolution, of which this is a part
    plane: int = 0  # of an operand of three values, what is above 0 (1) or below (-1); else see `part`
    part: tuple[float, float] | None = None
    weight_plane: int = 0


@dataclass(frozen=True, kw_only=True)
class Int8Convolution(PackedContraction):
    """Of bytes; its packing has a quantizer."""

    bytes_after: int  # which the kernel reads behind the last run


@dataclass(frozen=True, kw_only=True)
class BinaryProduct(PackedContraction):
    """conv: batch and height are the leading extents, pixels the rows, channels what is summed.

    zero_one: of each side, whether its bits stand for 0 and 1. The result is then doubled for each that does:
    with a = (s + 1) / 2, 2 sum(a t) = sum(s t) + sum(t), whose second term is a further argument, [.., 1, N]
    where the left side is of 0 and 1, [.., M, 1] where the right one is, in this order where both are.
    turned: as of `Product`."""

    zero_one: tuple[bool, bool] = (False, False)
    turned: bool = False


@dataclass(frozen=True, kw_only=True)
class Pack:
    """planar: what is packed is [N, C, H, W] or [N, C, L], and is packed as if it had been turned."""

    packing: Packing
    planar: bool = False


@dataclass(frozen=True, kw_only=True)
class SignSums:
    """packing: of the words."""

    packing: Packing


@dataclass(frozen=True)
class Border:
    """Has nothing to say but its arguments."""


ATTRIBUTES: dict[str, type] = {
    "bibench.convolution": Contraction,
    "bibench.matmul": Contraction,
    "bibench.transposed_convolution": Transposed,
    "bibench.product": Product,
    "bibench.named": Named,
    "bibench.pool": Pooling,
    "bibench.normalize": Normalization,
    "bibench.softmax": Softmax,
    "bibench.pack": Pack,
    "bibench.binary_convolution": BinaryConvolution,
    "bibench.int8_convolution": Int8Convolution,
    "bibench.binary_product": BinaryProduct,
    "bibench.sign_sums": SignSums,
    "bibench.border": Border,
}

Attributes = TypeVar("Attributes")


def call(operator: str, *args: relax.Expr, attributes: object) -> relax.Call:
    if type(attributes) is not ATTRIBUTES[operator]:
        raise TypeError(f"{operator} has {ATTRIBUTES[operator].__name__}, not {type(attributes).__name__}.")
    fields = msgspec.to_builtins(attributes)
    return relax.Call(tvm.ir.Op.get(operator), list(args), tvm.ir.make_node("ir.DictAttrs", **fields))


def attributes_of(value: relax.Call, kind: type[Attributes]) -> Attributes:
    """What `call` was given. Raises TypeError where the operator has attributes of another kind."""
    if not issubclass(ATTRIBUTES[value.op.name], kind):
        raise TypeError(f"{value.op.name} has {ATTRIBUTES[value.op.name].__name__}, not {kind.__name__}.")
    fields = {str(name): _plain(field) for name, field in value.attrs.items()}
    return msgspec.convert(fields, ATTRIBUTES[value.op.name], strict=False)


def _plain(value: Any) -> Any:
    """Python's own numbers, texts, lists and dictionaries of TVM's."""
    if isinstance(value, tvm.ir.Map):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tvm.ir.Array):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return str(value)  # TVM's is a class of its own
    return getattr(value, "value", value)


def image(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """A shape of rank 1 to 4 as that of an image."""
    n, h, w, c = (1,) * (4 - len(shape)) + tuple(shape)
    return n, h, w, c


def dense(shape: tuple[int, ...], out_channels: int) -> Convolution:
    """A matrix product with constant weights, [.., M, K] x [N, K], as a convolution of 1 x 1.

    shape: of the activations; out_channels: N.
    """
    n, h, w, c = image(shape)
    return Convolution(n, h, w, c, out_channels)


def packed_image(pack: relax.Call) -> tuple[int, int, int, int]:
    """The image that is packed, channels last."""
    shape = tuple(int(extent) for extent in pack.args[0].ty.shape)
    if not attributes_of(pack, Pack).planar:
        return image(shape)
    if len(shape) == 3:  # turned it has rank 3, and is read as any such
        n, c, w = shape
        return 1, n, w, c
    n, c, h, w = shape
    return n, h, w, c


def _layer_type(c: relax.Call, _: Any) -> relax.TensorType:
    dtype = "float32" if ATTRIBUTES[c.op.name] is Contraction else "int32"
    return relax.TensorType(attributes_of(c, Contraction).out_shape, dtype)


def _transposed_type(c: relax.Call, _: Any) -> relax.TensorType:
    return relax.TensorType(attributes_of(c, Transposed).out_shape, "float32")


def _product_type(c: relax.Call, _: Any) -> relax.TensorType:
    return relax.BlockBuilder().normalize(relax.op.matmul(*c.args)).ty


def _named_type(c: relax.Call, _: Any) -> relax.TensorType:
    return c.args[0].ty


def _pool_type(c: relax.Call, _: Any) -> relax.TensorType:
    pool = attributes_of(c, Pooling)
    return relax.TensorType(pool.window.out_shape, pool.dtype)


def _pack_type(c: relax.Call, _: Any) -> relax.TensorType:
    packing = attributes_of(c, Pack).packing
    return relax.TensorType(packing.shape(*packed_image(c)[:3]), packing.dtype)


def _sums_type(c: relax.Call, _: Any) -> relax.TensorType:
    n, h, w, _ = (int(extent) for extent in c.args[0].ty.shape)
    return relax.TensorType((n, h, w, 1), "int32")


def _border_type(c: relax.Call, _: Any) -> relax.TensorType:
    channels = int(c.args[0].ty.shape[2])
    rows, columns = (int(classes.ty.shape[0]) for classes in c.args[1:])
    return relax.TensorType((rows, columns, channels), "float32")


for _name, _infer in {
    "bibench.convolution": _layer_type,
    "bibench.matmul": _layer_type,
    "bibench.transposed_convolution": _transposed_type,
    "bibench.product": _product_type,
    "bibench.named": _named_type,
    "bibench.pool": _pool_type,
    "bibench.normalize": _named_type,
    "bibench.softmax": _named_type,
    "bibench.pack": _pack_type,
    "bibench.binary_convolution": _layer_type,
    "bibench.int8_convolution": _layer_type,
    "bibench.binary_product": _layer_type,
    "bibench.sign_sums": _sums_type,
    "bibench.border": _border_type,
}.items():
    tvm.ir.register_op_attr(_name, "FInferType", _infer)
    tvm.ir.register_op_attr(_name, "FPurity", True)
