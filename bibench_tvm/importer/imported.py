"""What every importer hands to the compiler: one Relax module, and the framework to compare it with."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from bibench_tvm.cli.errors import first_line as first_line
from bibench_tvm.importer.reference import Reference

if TYPE_CHECKING:
    import tvm

LAYER_OPERATORS = frozenset(
    {
        "relax.nn.conv1d",
        "relax.nn.conv2d",
        "relax.nn.conv3d",
        "relax.nn.conv1d_transpose",
        "relax.nn.conv2d_transpose",
        "relax.nn.conv3d_transpose",
        "relax.matmul",
    }
)
"""The Relax operators that count as a layer: the ones that can be binarized."""

InputShapes = Mapping[str | None, tuple[int, ...]]
"""Input name -> shape. The name `None` means the only input of the model."""


NOT_ASKED = (
    "The tensor {tensor} of {where} is float64, and the network would be computed in float32, which is less "
    "precise. Ask for that with --float32 (in Python, float32=True), or cast the model to float32."
)
COMPUTED_IN_FLOAT32 = (
    "The tensor {tensor} of {where} is bfloat16, and numpy has no such arrays to take or give. With "
    "--float32 (in Python, float32=True) the inputs and outputs that are bfloat16 become float32."
)


def note_on_dtype(names: Sequence[str]) -> str:
    """What the manifest says of a network in these types that is computed in float32."""
    how = "which is less precise" if "float64" in names else "which rounds less"
    return (
        f"The source computes in {' and '.join(names)}, and this network in float32, {how}: they differ by "
        "rounding. A verification compares it with the source computed in float32."
    )


class ImportFailed(ValueError):
    """The model cannot be imported; the message is a sentence for the user."""


@dataclass(frozen=True)
class TensorSpec:
    """Name, static shape and dtype (as TVM spells it, e.g. `float32`) of one input or output."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Imported:
    """A model as one Relax function `main`, in float, with every shape static and the parameters constants.

    `main` returns a tensor if the model has one output and a tuple of tensors otherwise. What depends on
    parameters alone has been computed: `sign(w) * alpha` is one constant. `relax.sign` is left in place.

    `layer_names` maps the `name` of the Relax variable bound to a call in `LAYER_OPERATORS` to the
    name that the user knows, unique in the model: the path of the PyTorch module (`layer1.0.conv1`), or the
    name of the ONNX node. `reference` runs the original framework on the inputs, in order. `arch` and
    `algorithm` are the names that `trainers` has for the network, None where it is not known. `notes`
    says where the network computes in another type than the source, and what was assumed of its shapes.
    """

    module: tvm.IRModule
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    layer_names: dict[str, str]
    reference: Reference
    notes: list[str] = field(default_factory=list)
    arch: str | None = None
    algorithm: str | None = None


def note_on_batch(name: str, shape: Sequence[int]) -> str:
    """What the manifest says of an input whose first size is left open and not given."""
    others = "".join(f"x{size}" for size in shape[1:])
    return (
        f"The first size of the input {name!r} is left open in the source; it is taken for the batch, and is "
        f"{shape[0]}. Another is given with --input-shape {name}:N{others}."
    )


def parse_input_shape(text: str) -> tuple[str | None, tuple[int, ...]]:
    """Read `1x3x32x32`, `1,3,32,32` or either with `NAME:` in front; returns (name or None, shape).

    Raises ImportFailed if there is no shape in the text or a size is not a positive integer.
    """
    # ONNX names may hold colons ("input:0"), so the shape is what follows the last one.
    name, _, sizes = text.rpartition(":")
    parts = re.split(r"\s*[x,×]\s*", sizes.strip().strip("[]()"))
    if not all(re.fullmatch(r"[0-9]+", part) and int(part) > 0 for part in parts):
        raise ImportFailed(
            f"{text!r} is not an input shape; write positive sizes joined by x, for example 1x3x32x32 "
            "or data:1x3x32x32."
        )
    return name.strip() or None, tuple(int(part) for part in parts)


def shapes_by_name(
    input_shapes: InputShapes | None, names: Sequence[str], where: str
) -> dict[str, tuple[int, ...]]:
    """Resolve the nameless shape and refuse names that the model does not have.

    `where` is how the error calls the model, for example a file name.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in (input_shapes or {}).items():
        if name is None:
            if len(names) != 1:
                raise ImportFailed(
                    f"{where} has {len(names)} inputs ({', '.join(names)}), so every --input-shape needs the "
                    f"name of its input, for example {names[0] if names else 'x'}:{_join(shape)}."
                )
            name = names[0]
        if name not in names:
            raise ImportFailed(f"{where} has no input {name!r}; its inputs are {', '.join(names)}.")
        shapes[name] = tuple(int(size) for size in shape)
    return shapes


def as_input_array(value: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """Check one input of a reference run against its spec and return it contiguous.

    Raises ValueError if shape or dtype differ.
    """
    array = np.asarray(value, order="C")  # np.ascontiguousarray makes one dimension of none
    if array.shape != spec.shape or str(array.dtype) != spec.dtype:
        raise ValueError(
            f"Input {spec.name!r} is {array.dtype} {_join(array.shape)}; the model takes "
            f"{spec.dtype} {_join(spec.shape)}."
        )
    return array


def check_input_count(values: Sequence[np.ndarray], specs: Sequence[TensorSpec]) -> None:
    """Raise ValueError unless there is one value per input."""
    if len(values) != len(specs):
        names = ", ".join(spec.name for spec in specs)
        raise ValueError(f"The model takes {len(specs)} inputs ({names}); {len(values)} were given.")


def returned_types(module: tvm.IRModule) -> list[tuple[tuple[int, ...], str]]:
    """Shape and dtype of each tensor that `main` returns, as TVM derived them.

    Raises ImportFailed if a shape is not static.
    """
    from tvm import relax

    returned = module["main"].ret_ty
    types = list(returned.fields) if isinstance(returned, relax.TupleType) else [returned]
    for position, ty in enumerate(types):
        if ty.shape is None or not all(hasattr(size, "value") for size in ty.shape):
            raise ImportFailed(
                f"The shape of output {position} of the model depends on the values of the input; a compiled "
                "network needs static shapes, so leave that output out."
            )
    return [(tuple(int(size) for size in ty.shape), str(ty.dtype.dtype)) for ty in types]


def layer_variables(module: tvm.IRModule) -> list[str]:
    """The names of the variables of `main` bound to a layer, in order."""
    from tvm import relax

    names = []
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            value = getattr(binding, "value", None)
            if isinstance(value, relax.Call) and getattr(value.op, "name", None) in LAYER_OPERATORS:
                names.append(binding.var.name)
    return names


def _join(shape: Sequence[int]) -> str:
    return "x".join(str(size) for size in shape) or "scalar"
