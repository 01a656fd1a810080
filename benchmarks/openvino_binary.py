"""Turns the binary layers of a network in OpenVINO into its `BinaryConvolution`; all else stays as it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
from openvino import opset1, opset8
from openvino.passes import ConstantFolding, Manager

from bibench_tvm.cli.errors import BibenchError

# FakeQuantize gives 1 above its threshold and 0 at it, and the sign of 0 is +1: hence the float just below 0
# that is not subnormal.
JUST_BELOW_ZERO = -np.finfo(np.float32).tiny


def to_binary(model: openvino.Model) -> None:
    """Replace each convolution of signs with weights of one magnitude per output channel, in place."""
    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(model)
    replaced = 0
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Convolution":
            continue
        source, weights = (node.input_value(i).get_node() for i in range(2))
        if source.get_type_name() != "Select":
            continue
        scale = _scale(weights.data)
        attributes = node.get_attributes()
        result: Any = opset1.binary_convolution(
            _sign(source, replaced),
            _packed(weights.data),
            attributes["strides"],
            attributes["pads_begin"],
            attributes["pads_end"],
            attributes["dilations"],
            "xnor-popcount",
            0.0,
        )
        if (scale != 1).any():  # a batch norm that was folded into the weights
            result = opset8.multiply(result, opset8.constant(scale))
        node.output(0).replace(result.output(0))
        replaced += 1
    model.validate_nodes_and_infer_types()
    if not replaced:
        raise BibenchError("The network has no layer that OpenVINO could binarize: nothing to compare with.")


def _sign(select: Any, number: int) -> Any:
    """`where(x >= 0, 1, -1)` as a FakeQuantize of two levels, no two alike.

    Where two convolutions read one sign, each gets its own: were they equal, OpenVINO would make one of them
    and compute it in the convolution before, and there it is wrong when a residual is added too.
    """
    compare = select.input_value(0).get_node()
    constants = (compare.input_value(1), select.input_value(1), select.input_value(2))
    values = [float(constant.get_node().data) for constant in constants]
    if compare.get_type_name() != "GreaterEqual" or values != [0.0, 1.0, -1.0]:
        raise BibenchError("The sign in this network is not where(x >= 0, 1, -1).")
    # Its levels are 0 and 1, bits: with -1 and +1 the CPU plugin computes floats and converts those, wrongly.
    threshold, low, high = (opset8.constant(np.float32(v)) for v in (JUST_BELOW_ZERO * (1 + number), 0, 1))
    return opset8.fake_quantize(compare.input_value(0), threshold, threshold, low, high, 2)


def _scale(weights: np.ndarray) -> np.ndarray:
    """The magnitude of each output channel's weights: float32 [1, O, 1, 1]."""
    magnitudes = np.abs(weights).reshape(len(weights), -1)
    if (magnitudes != magnitudes[:, :1]).any():
        raise BibenchError("A convolution of signs has weights that are not binary.")
    return magnitudes[:, 0].reshape(1, -1, 1, 1)


def _packed(weights: np.ndarray) -> Any:
    """A constant of bits, the first in the lowest: +1 is 1."""
    bits = np.packbits(weights > 0, bitorder="little")
    tensor = openvino.Tensor(bits, openvino.Shape(weights.shape), openvino.Type.u1)
    return openvino.op.Constant(tensor, shared_memory=False)  # `bits` is gone when this returns
