"""The attributes of an ONNX node, and which of them a converter ignores."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import helper

# What changes nothing that is compiled here: (operator or "", attribute).
IGNORED = {
    *((op, "kernel_shape") for op in ("Conv", "ConvTranspose")),  # it is that of the weights
    ("Split", "num_outputs"),  # it is the number of outputs
    ("MaxPool", "storage_order"),  # of the indices, which TVM does not give
    *(
        (op, name) for op in ("Cast", "CastLike", "QuantizeLinear") for name in ("saturate", "round_mode")
    ),  # float8
}


class Attributes(dict[str, Any]):
    """The attributes of a node, and which of them a converter has read."""

    def __init__(self, attributes: dict[str, Any]) -> None:
        super().__init__(attributes)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.read.add(name)
        return super().get(name, default)

    def ignored(self, operator: str, opset: int) -> list[str]:
        """Those that nobody has read, and that are not what they are by default."""
        try:
            known = onnx.defs.get_schema(operator, opset).attributes
        except onnx.defs.SchemaError:
            known = {}
        found = []
        for name in sorted(set(self) - self.read - {"tvm_custom"}):
            default = helper.get_attribute_value(known[name].default_value) if name in known else None
            if (operator, name) not in IGNORED and super().__getitem__(name) != default:
                found.append(name)
        return found
