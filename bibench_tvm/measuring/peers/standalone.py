"""One layer on its own, made from its geometry: operands at random, and the network of it alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bibench_tvm.importer import Imported, ReferenceRun, TensorSpec
from schedules.geometry import Convolution
from schedules.kernels.convolution import convolution_reference

if TYPE_CHECKING:
    import tvm


@dataclass(frozen=True)
class Standalone:
    """linear: a matrix product, whose rows are the pixels; binarized: over signs, with weights of +-1."""

    conv: Convolution
    linear: bool
    binarized: bool

    @property
    def x(self) -> np.ndarray:
        """float32 [N, H, W, C], the same each time, and without a 0."""
        shape = (self.conv.batch, self.conv.height, self.conv.width, self.conv.channels)
        x = np.random.default_rng(0).standard_normal(shape, "float32")
        return np.where(x == 0, np.float32(1), x)

    @property
    def weights(self) -> np.ndarray:
        """float32 [O, KH, KW, C / groups]."""
        conv = self.conv
        shape = (conv.out_channels, *conv.kernel, conv.channels // conv.groups)
        weights = np.random.default_rng(1).standard_normal(shape, "float32")
        return signs(weights) if self.binarized else weights

    def shaped(self, image: np.ndarray) -> np.ndarray:
        """Channels last, as the network takes and gives it: rows for a linear layer."""
        return image.reshape(-1, image.shape[-1]) if self.linear else image

    def expected(self, x: np.ndarray) -> np.ndarray:
        """float32 [N, OH, OW, O]: what the layer computes of these activations, whatever they are."""
        return convolution_reference(x, self.weights, self.conv)

    def imported(self) -> Imported:
        """The network of this layer alone, channels last: what compiling it takes."""
        x = self.shaped(self.x)
        y = self.shaped(np.zeros(self.conv.out_shape, "float32"))

        def reference(inputs: list[np.ndarray]) -> ReferenceRun:
            taken = inputs[0].reshape(self.x.shape)
            computed = self.expected(signs(taken) if self.binarized else taken)
            return ReferenceRun([self.shaped(computed)], {})

        specs = (TensorSpec("x", x.shape, "float32"),), (TensorSpec("y", y.shape, "float32"),)
        return Imported(self._module(), *specs, {"layer": "layer"}, reference)  # type: ignore[arg-type]  # called alone

    def _module(self) -> tvm.IRModule:
        from tvm import relax

        op, conv = relax.op, self.conv
        builder = relax.BlockBuilder()
        x = relax.Var("x", relax.TensorType(self.shaped(self.x).shape, "float32"))
        with builder.function("main", [x]):
            with builder.dataflow():
                read = x
                if self.binarized:  # with +1 at 0, and so not relax's sign
                    zero, plus, minus = (relax.const(value, "float32") for value in (0.0, 1.0, -1.0))
                    read = builder.emit(op.where(op.greater_equal(x, zero), plus, minus))
                if self.linear:
                    matrix = self.weights.reshape(conv.out_channels, -1).T
                    y = builder.emit(op.matmul(read, relax.const(np.ascontiguousarray(matrix))), "layer")
                else:
                    planar = builder.emit(op.permute_dims(read, [0, 3, 1, 2]))
                    kernel = relax.const(np.ascontiguousarray(self.weights.transpose(0, 3, 1, 2)))
                    geometry = dict(strides=conv.strides, padding=conv.padding, dilation=conv.dilation)
                    layer = op.nn.conv2d(planar, kernel, **geometry, groups=conv.groups)
                    y = op.permute_dims(builder.emit(layer, "layer"), [0, 2, 3, 1])
                result = builder.emit_output(y)
            builder.emit_func_output(result)
        return builder.get()


def signs(x: np.ndarray) -> np.ndarray:
    return np.where(x >= 0, np.float32(1), np.float32(-1))
