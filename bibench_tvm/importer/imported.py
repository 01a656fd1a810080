"""What every importer hands to the compiler: one Relax module, and the framework to compare it with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bibench_tvm.cli.errors import UsageError
from bibench_tvm.importer.reference import Reference

if TYPE_CHECKING:
    import tvm


class ImportFailed(UsageError):
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

    `layer_names` maps the `name` of the Relax variable bound to a layer (see `naming.py`) to the
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
