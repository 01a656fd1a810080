"""What TVM's translator of PyTorch programs computes wrongly, refuses or lacks, and does here.

Each was tried with TVM 0.27; tests/bibench_tvm/importer/from_torch/test_repairs.py fails where TVM itself has
become right, so that the repair can go.
"""

from __future__ import annotations

import itertools
import math
import operator
from typing import Any

import numpy as np
import torch
import tvm
from torch import fx
from tvm import relax

from bibench_tvm.importer.from_torch.indexing import Indexing
from bibench_tvm.importer.operators import (
    elu,
    expm1,
    hyperbolic,
    log1p,
    of_truths,
    weighed,
    with_infinities,
)


class Repairs(Indexing):
    """TVM's translator, mended. `infinite`: whether a mask may make whole rows infinite."""

    infinite = False

    def __init__(self) -> None:
        super().__init__()
        # TVM fixes the type of a product to float32, whatever its operands are.
        product = self._binary_op(relax.op.matmul, operator.matmul)
        self.convert_map.update({f"{op}.default": product for op in ("matmul", "mm", "bmm")})
        self.convert_map["cumsum.default"] = self._cumulative_sum
        self.convert_map["div.Tensor_mode"] = self._rounded_quotient
        self.convert_map["bitwise_not.default"] = self._bitwise_not
        self.convert_map["any.default"] = self._any
        # These TVM does not have.
        self.convert_map["amax.default"] = self._extremum(relax.op.max)
        self.convert_map["amin.default"] = self._extremum(relax.op.min)
        for name, relax_op in (("lshift", relax.op.left_shift), ("rshift", relax.op.right_shift)):
            self.convert_map[f"__{name}__.Scalar"] = self._binary_op(relax_op, getattr(operator, name))
        self.convert_map["exp2.default"] = lambda node: self._power_of_two(self._arg(node))
        self.convert_map["ldexp.Tensor"] = self._ldexp
        for name, relax_op in (("max", relax.op.max), ("min", relax.op.min)):
            self.convert_map[f"{name}.dim"] = self._extremum_along(
                relax_op, self.convert_map.get(f"{name}.dim")
            )
        self.convert_map["prod.default"] = self.convert_map["prod.dim_int"] = self._product
        self.convert_map["adaptive_max_pool2d.default"] = self._adaptive_max_pool2d
        for name in ("nearest2d.vec", "bilinear2d.vec", "bicubic2d.vec"):
            self.convert_map[f"upsample_{name}"] = self._upsample
        for name in ("bilinear2d_aa", "bicubic2d_aa"):
            self.convert_map[f"_upsample_{name}.default"] = self._upsample
        self.convert_map["split_with_sizes.default"] = self._split_with_sizes
        self.convert_map["copysign.Tensor"] = self.convert_map["copysign.Scalar"] = self._copysign
        self.convert_map["signbit.default"] = lambda node: self._has_sign(self._arg(node))
        self.convert_map["bucketize.Tensor"] = self._bucketize
        # TVM's own lose the digits of small numbers: log(1 + x), exp(x) - 1.
        self.convert_map["log1p.default"] = lambda node: self._emitted(log1p(self._arg(node)))
        self.convert_map["expm1.default"] = lambda node: self._emitted(expm1(self._arg(node)))
        # TVM generates no code for these of vectors, which our schedules make.
        self.convert_map["sinh.default"] = lambda node: self._emitted(hyperbolic(self._arg(node), sine=True))
        self.convert_map["cosh.default"] = lambda node: self._emitted(hyperbolic(self._arg(node), sine=False))

    def _split_with_sizes(self, node: Any) -> relax.Expr:
        """TVM's own wants every part to have an element."""
        x, sizes, axis = (*node.args, 0)[:3]
        if 0 not in sizes:
            return super()._split(node)
        ends = list(itertools.accumulate(sizes))
        parts = [
            self._emitted(relax.op.strided_slice(self.env[x], [axis], [end - size], [end]))
            for size, end in zip(sizes, ends, strict=True)
        ]
        return self.block_builder.emit(relax.Tuple(parts))

    def _has_sign(self, x: relax.Expr) -> relax.Expr:
        """Whether a number bears a minus: -0.0 too, which is not below 0; 1 / -0.0 is."""
        if "float" not in str(x.ty.dtype.dtype):
            return self._emitted(relax.op.less(x, relax.const(0, x.ty.dtype.dtype)))
        zero, one = relax.const(np.float32(0)), relax.const(np.float32(1))
        inverse = self._emitted(relax.op.less(relax.op.divide(one, x), zero))
        return self._emitted(relax.op.logical_or(relax.op.less(x, zero), inverse))

    def _copysign(self, node: Any) -> relax.Expr:
        size, sign = (
            self.env[arg] if isinstance(arg, fx.Node) else relax.const(np.float32(arg)) for arg in node.args
        )
        size = self._emitted(relax.op.abs(size))
        return self._emitted(relax.op.where(self._has_sign(sign), relax.op.negative(size), size))

    def _bucketize(self, node: Any) -> relax.Expr:
        """A sum of comparisons; of TVM's own search no pass of ours makes a loop."""
        x, bounds = node.args[:2]
        right = node.kwargs.get("right", False)
        if bounds not in self.values or len(self.values[bounds]) > 64:
            raise NotImplementedError("its boundaries are computed, or more than 64.")
        dtype = self._convert_data_type(node.meta["val"].dtype)
        given, found = self.env[x], relax.const(0, dtype)
        for bound in self.values[bounds].tolist():
            limit = relax.const(bound, given.ty.dtype.dtype)
            # Turned round, so that NaN comes behind all.
            before = (relax.op.less if right else relax.op.less_equal)(given, limit)
            beyond = self._emitted(relax.op.astype(relax.op.logical_not(self._emitted(before)), dtype))
            found = self._emitted(relax.op.add(found, beyond))
        return found

    def _elu(self, node: Any) -> relax.Expr:
        """TVM knows neither factor, which selu has, and makes 0 of small numbers below 0."""
        x = node.args[0]
        alpha, scale, inner = (*node.args[1:], 1.0, 1.0, 1.0)[:3]
        return self._emitted(elu(self.env[x], alpha, scale, inner))

    def _clamp(self, node: Any) -> relax.Expr:
        """TVM cannot leave out a bound of integers, and lets the lower of two that cross win."""
        names = [argument.name for argument in node.target._schema.arguments]
        given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
        low, high = given.get("min"), given.get("max")
        dtype = self._convert_data_type(node.meta["val"].dtype)
        x = self.env[node.args[0]]
        if str(x.ty.dtype.dtype) != dtype:
            x = self._emitted(relax.op.astype(x, dtype))
        numbers: list[Any] = [
            math.inf * sign if bound is None else bound for sign, bound in ((-1, low), (1, high))
        ]
        plain = not any(isinstance(bound, fx.Node) for bound in numbers) and numbers[0] <= numbers[1]
        if plain and ("float" in dtype or not any(math.isinf(bound) for bound in numbers)):
            return self._emitted(relax.op.clip(x, *numbers))
        for bound, relax_op in ((low, relax.op.maximum), (high, relax.op.minimum)):
            if bound is not None:
                other = self.env[bound] if isinstance(bound, fx.Node) else relax.const(bound, dtype)
                x = self._emitted(relax_op(x, relax.op.astype(other, dtype)))
        return x

    _clamp_min = _clamp_max = _clamp

    def _max_pool2d_impl(self, *args: Any, **kwargs: Any) -> relax.Expr:
        """TVM's own begins with the last finite number, and so never finds that all are infinite."""
        pooled = super()._max_pool2d_impl(*args, **kwargs)
        return self._emitted(with_infinities(pooled, greatest=True)) if self.infinite else pooled

    def _grid_sampler_2d(self, node: Any) -> relax.Expr:
        """TVM takes the two coordinates of a grid before its points, and PyTorch behind them."""
        x, grid, mode, padding, align_corners = node.args
        return self._emitted(
            relax.op.image.grid_sample(
                self.env[x],
                relax.op.permute_dims(self.env[grid], [0, 3, 1, 2]),
                method=("bilinear", "nearest", "bicubic")[mode],
                layout="NCHW",
                padding_mode=("zeros", "border", "reflection")[padding],
                align_corners=align_corners,
            )
        )

    def _where(self, node: Any) -> relax.Expr:
        """TVM takes branches of one type only; PyTorch promotes, numbers of no dimension among them."""
        condition, *branches = (self.env[arg] for arg in node.args)
        dtype = self._convert_data_type(node.meta["val"].dtype)
        return self._emitted(relax.op.where(condition, *(self._typed(branch, dtype) for branch in branches)))

    def _typed(self, x: relax.Expr, dtype: str) -> relax.Expr:
        """A number that TVM made a cast of stays a number: which two values are taken is to be seen."""
        made, between = self.block_builder.lookup_binding(x) if isinstance(x, relax.Var) else x, dtype
        if isinstance(made, relax.Call) and made.op == tvm.ir.Op.get("relax.astype"):
            made, between = made.args[0], str(made.attrs.dtype)
        if isinstance(made, tvm.ir.GenericConst) and not made.ty.ndim:
            return relax.const(made.value.numpy().astype(between), dtype)
        return x if str(x.ty.dtype.dtype) == dtype else self._emitted(relax.op.astype(x, dtype))

    def _upsample(self, node: Any) -> relax.Expr:
        """TVM's own by whole factors without corners, else each axis by the weights that PyTorch gives it.

        TVM has another nearest one, takes a scale from the rounded sizes, and does not smooth.
        """
        names = [argument.name for argument in node.target._schema.arguments]
        given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
        x = self.env[node.args[0]]
        sizes, outs = node.args[0].meta["val"].shape[2:], node.meta["val"].shape[2:]
        whole = all(out % size == 0 for out, size in zip(outs, sizes, strict=True))
        method = {"nearest2d": "nearest_neighbor", "bilinear2d": "linear"}.get(node.target.__name__[9:-4])
        if whole and method and not given.get("align_corners"):
            return self._emitted(relax.op.image.resize2d(x, tuple(outs), layout="NCHW", method=method))
        for position, (size, out) in enumerate(zip(sizes, outs, strict=True)):
            if size == out and given.get("scale_factors") is None:
                continue
            axis = dict(given) | {names[0]: torch.eye(size)[None, None]}
            if axis.get("output_size") is not None:
                axis["output_size"] = [size, out]
            if axis.get("scale_factors") is not None:
                axis["scale_factors"] = [1.0, axis["scale_factors"][position]]
            if "scales_h" in names:
                axis |= {"scales_h": None, "scales_w": given.get(("scales_h", "scales_w")[position])}
            matrix = node.target(**axis)[0, 0].numpy()
            x = weighed(x, 4, 2 + position, matrix)
        return self._emitted(x)

    def _binary_op(self, relax_op: Any, intrinsic_op: Any) -> Any:
        """Arithmetic with PyTorch's type promotion and `alpha`.

        TVM turns a number into the type of the tensor beside it, so that `(x >= 0) * 2` multiplies by `True`
        and `int_tensor * 0.5` by 0; and it drops the `alpha` of `add` and `sub`. It refuses to divide by 0,
        and has no code for what of_truths computes.
        """

        def convert(node: Any) -> relax.Expr:
            operands = node.args[:2]
            metas = [x.meta["val"] if isinstance(x, fx.Node) else x for x in operands]
            dtype = torch.result_type(*metas)
            result = node.meta["val"].dtype
            if not dtype.is_floating_point and result.is_floating_point:
                dtype = result  # a quotient of integers
            tvm_dtype = self._convert_data_type(dtype)
            if relax_op is relax.op.power and not dtype.is_floating_point:
                raise NotImplementedError("a power of integers whose exponent is computed.")

            def typed(operand: Any, factor: Any = 1) -> relax.Expr:
                if not isinstance(operand, fx.Node):
                    return relax.const(operand * factor, tvm_dtype)
                expr = self.env[operand]
                if expr.ty.dtype.dtype != tvm_dtype:
                    expr = self.block_builder.emit(relax.op.astype(expr, tvm_dtype))
                if factor != 1:
                    expr = self.block_builder.emit(relax.op.multiply(expr, relax.const(factor, tvm_dtype)))
                return expr

            lhs, rhs = operands
            if (
                relax_op is relax.op.divide
                and not isinstance(rhs, fx.Node)
                and not rhs
                and "float" in tvm_dtype
            ):
                infinite = relax.const(math.copysign(math.inf, rhs), tvm_dtype)  # TVM divides by no 0
                return self.block_builder.emit(relax.op.multiply(typed(lhs), infinite))
            values = typed(lhs), typed(rhs, node.kwargs.get("alpha", 1))
            made = of_truths(relax_op.__name__, *values) if dtype is torch.bool else None
            return self._emitted(relax_op(*values) if made is None else made)

        return convert

    def _bitwise_not(self, node: Any) -> relax.Expr:
        """TVM's own of truths is another operator than the one that our passes know."""
        is_truth = node.meta["val"].dtype is torch.bool
        invert = relax.op.logical_not if is_truth else relax.op.bitwise_not
        return self._emitted(invert(self._arg(node)))

    def _any(self, node: Any) -> relax.Expr:
        """TVM's own gives the greatest of numbers, and refuses all axes."""
        x, axes, keepdims = (*node.args, None, False)[:3] if len(node.args) == 1 else (*node.args, False)[:3]
        true = self._arg(node)
        if x.meta["val"].dtype is not torch.bool:
            true = self._emitted(relax.op.not_equal(true, relax.const(0, true.ty.dtype.dtype)))
        bytes_ = self._emitted(relax.op.astype(true, "int8"))
        found = self._emitted(relax.op.max(bytes_, axes, keepdims=keepdims))
        return self._emitted(relax.op.astype(found, "bool"))

    def _power_of_two(self, x: relax.Expr) -> relax.Expr:
        return self._emitted(relax.op.power(relax.const(np.float32(2)), x))

    def _ldexp(self, node: Any) -> relax.Expr:
        x = self._emitted(relax.op.astype(self._arg(node), "float32"))
        if (known := self.values.get(node.args[1])) is not None:
            power: relax.Expr = relax.const(np.exp2(known.numpy().astype(np.float32)))
        else:
            power = self._power_of_two(self._emitted(relax.op.astype(self._arg(node, 1), "float32")))
        return self._emitted(relax.op.multiply(x, power))

    def _cumulative_sum(self, node: Any) -> relax.Expr:
        """TVM's own sums in the type of the operand, truths among them; PyTorch sums integers in 64 bits."""
        dtype = self._convert_data_type(node.meta["val"].dtype)
        x = self.block_builder.emit(relax.op.astype(self.env[node.args[0]], dtype))
        return self.block_builder.emit(relax.op.cumsum(x, node.args[1]))

    def _rounded_quotient(self, node: Any) -> relax.Expr:
        """TVM's own divides by a number of another type than the integers that it divides."""
        if node.kwargs["rounding_mode"] == "floor":
            return self._binary_op(relax.op.floor_divide, operator.floordiv)(node)
        quotient = self._binary_op(relax.op.divide, operator.truediv)(node)
        if node.kwargs["rounding_mode"] is None or not node.meta["val"].dtype.is_floating_point:
            return quotient  # of integers it is truncated
        return self.block_builder.emit(relax.op.trunc(quotient))

    def _extremum(self, relax_op: Any) -> Any:
        """See `_max_pool2d_impl`."""

        def convert(node: Any) -> relax.Expr:
            x, axes, keepdims = (
                (*node.args, None, False)[:3] if len(node.args) == 1 else (*node.args, False)[:3]
            )
            made = relax_op(self.env[x], list(axes) if axes else None, keepdims=keepdims)
            made = self.block_builder.emit(made)
            if not self.infinite:
                return made
            return self._emitted(with_infinities(made, greatest=relax_op is relax.op.max))

        return convert

    def _extremum_along(self, relax_op: Any, with_indices: Any) -> Any:
        """Values alone, where nobody reads the indices; TVM's own sorts."""

        def convert(node: Any) -> relax.Expr:
            if any(user.args[1] == 1 and user.users for user in node.users):
                if with_indices is None:
                    raise NotImplementedError("the indices of a minimum.")
                return with_indices(node)
            x, axis, keepdims = (*node.args, False)[:3]
            made = self._emitted(relax_op(self.env[x], axis, keepdims=keepdims))
            if self.infinite:
                made = self._emitted(with_infinities(made, greatest=relax_op is relax.op.max))
            return self._emitted(relax.Tuple([made]))

        return convert

    def _product(self, node: Any) -> relax.Expr:
        """Of all, or along one axis; PyTorch multiplies integers in 64 bits, and truths as such."""
        x, axis, keepdims = (*node.args, None, False)[:3] if len(node.args) == 1 else (*node.args, False)[:3]
        dtype = self._convert_data_type(node.meta["val"].dtype)
        factors = self._emitted(relax.op.astype(self.env[x], dtype))
        return self._emitted(relax.op.prod(factors, axis=axis, keepdims=keepdims))

    def _adaptive_max_pool2d(self, node: Any) -> relax.Expr:
        x, out = node.args
        sizes = x.meta["val"].shape[-2:]
        pooled = self.env[x]
        if any(size % wanted for size, wanted in zip(sizes, out, strict=True)):
            for axis, size, wanted in zip((-2, -1), sizes, out, strict=True):
                pooled = self._largest_of_shares(pooled, axis, size, wanted)
        else:
            window = [size // wanted for size, wanted in zip(sizes, out, strict=True)]
            pooled = self._max_pool2d_impl(pooled, window, window)
        return self.block_builder.emit(relax.Tuple([pooled]))

    def _largest_of_shares(self, x: relax.Expr, axis: int, size: int, wanted: int) -> relax.Expr:
        """Of `wanted` stretches of an axis from the end, which overlap where they do not divide it."""
        begins = [i * size // wanted for i in range(wanted)]
        ends = [-(-(i + 1) * size // wanted) for i in range(wanted)]
        longest = max(end - begin for begin, end in zip(begins, ends, strict=True))
        # A shorter one has its last number again, which changes no maximum.
        places = [min(b + k, e - 1) for k in range(longest) for b, e in zip(begins, ends, strict=True)]
        shape = [int(n) for n in x.ty.shape]
        at = len(shape) + axis
        taken = self._emitted(relax.op.take(x, relax.const(np.array(places, "int64")), at))
        apart = self._emitted(relax.op.reshape(taken, [*shape[:at], longest, wanted, *shape[at + 1 :]]))
        return self._emitted(relax.op.max(apart, at))

    def _avg_pool2d(self, node: Any) -> relax.Expr:
        return self._divided(node, super()._avg_pool2d(node), 2)

    def _avg_pool3d(self, node: Any) -> relax.Expr:
        return self._divided(node, super()._avg_pool3d(node), 3)

    def _divided(self, node: Any, pooled: relax.Expr, rank: int) -> relax.Expr:
        divisor = node.args[6] if len(node.args) > 6 else None
        if divisor is None:
            return pooled
        # TVM ignores the divisor. Over whole windows it is a factor; at an edge each has its own count.
        padding, ceil_mode = (*node.args, 0, False)[3:5]
        if ceil_mode or any(padding if isinstance(padding, (list, tuple)) else [padding]):
            raise NotImplementedError("divisor_override together with padding or ceil_mode.")
        window = node.args[1] if len(node.args[1]) == rank else [*node.args[1]] * rank
        factor = np.float32(math.prod(window) / divisor)
        return self.block_builder.emit(relax.op.multiply(pooled, relax.const(factor)))

    def _convolution(self, node: Any) -> relax.Expr:
        """TVM refuses a transposed convolution of volumes."""
        x, weight, bias, strides, padding, dilation, transposed, output_padding, groups = node.args
        if not transposed or len(strides) < 3:
            return super()._convolution(node)
        product = self.block_builder.emit(
            relax.op.nn.conv3d_transpose(
                self.env[x], self.env[weight], strides, padding, output_padding, dilation, groups
            )
        )
        if bias is None:
            return product
        return self.block_builder.emit(
            relax.op.add(product, relax.op.reshape(self.env[bias], (1, -1, 1, 1, 1)))
        )

    def _linear(self, node: Any) -> relax.Expr:
        """TVM's own is of float32, whatever its operands are."""
        x, weight, *bias = (self.env[arg] if arg is not None else None for arg in node.args)
        return self.block_builder.emit(relax.op.linear(x, weight, bias[0] if bias else None))
