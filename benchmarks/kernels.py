"""The kernels of a compiled network one by one, with the very arguments that the network gives them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import relax, tirx

from bibench_tvm.cli.errors import BibenchError
from bibench_tvm.compiling.build import chooser
from bibench_tvm.compiling.processors import CompileTarget
from bibench_tvm.importer import import_model
from relay_passes import lower
from relay_passes.ir.layers import Layer
from relay_passes.kernels.kernel import KernelCall
from schedules.codegen import generate_code
from schedules.parts.bits import pack


@dataclass(frozen=True)
class Kernel:
    """One call of a kernel in a network.

    layer: what it computes, or the kernel's own name; macs: 0 for glue; arguments: inputs, then `outputs`
    arrays to be filled; expected: what a binary kernel should write, else None.
    """

    symbol: str
    layer: str
    binary: bool
    macs: int
    function: tirx.PrimFunc
    arguments: tuple[np.ndarray, ...]
    outputs: int
    expected: tuple[np.ndarray, ...] | None

    @property
    def title(self) -> str:
        return f"{self.layer}, {self.macs / 1e6:.1f} M"

    def check(self, after: Sequence[np.ndarray]) -> None:
        """after: the arguments when the kernel has run. Bits must be equal; floats may round."""
        for ours, theirs in zip(after[len(after) - self.outputs :], self.expected or (), strict=False):
            tolerance = 1e-5 if ours.dtype.kind == "f" else 0
            if not np.allclose(ours, theirs, tolerance, tolerance):
                raise BibenchError(f"The kernel of {self.title} does not compute what its reference does.")


def kernels_of(model: Any, example: Any, target: CompileTarget, reach: float | None = None) -> list[Kernel]:
    """One for each call of a kernel of ours in the network, in order. reach: the largest magnitude of what
    goes into its float layers, which are then computed in int8."""
    imported = import_model(model, example_inputs=(example,))
    ranges = None if reach is None else dict.fromkeys(imported.layer_names.values(), reach)
    lowered = lower(
        imported.module, imported.layer_names, target.kernels, chooser(target, None), ranges=ranges
    )
    order = [binding for block in lowered.module["main"].body.blocks for binding in block.bindings]
    definition = {binding.var: binding.value for binding in order}
    records: dict[relax.Var, KernelCall] = {}
    for record in lowered.kernel_calls:
        value = definition[record.outputs[0]]
        records[value.tuple_value if isinstance(value, relax.TupleGetItem) else record.outputs[0]] = record
    floats = iter([layer for layer in lowered.layers if layer.dtype in ("float16", "float32")])
    generator = np.random.default_rng(0)
    return [
        _kernel(lowered.module, binding, records.get(binding.var), floats, generator)
        for binding in order
        if isinstance(binding.value, relax.Call) and binding.value.op.name == "relax.call_tir"
    ]


def _kernel(
    module: tvm.IRModule, binding: Any, record: KernelCall | None, floats: Iterator[Layer], generator: Any
) -> Kernel:
    gvar, arguments = binding.value.args[0], list(binding.value.args[1].fields)
    layer, macs, expected = gvar.name_hint, 0, None
    inputs = [_array(argument, generator) for argument in arguments]
    if record is not None:
        conv = record.layer.conv
        layer, macs = record.layer.name, conv.macs
        values = generator.standard_normal((conv.batch, conv.height, conv.width, conv.channels), np.float32)
        inputs[0] = pack(values if record.layer.packing.quantizer else values < 0, record.layer.packing)
        if record.weights is not None:
            given = [(a, x) for a, x in zip(arguments, inputs, strict=True) if isinstance(a, relax.Var)]
            read = [next(x for a, x in given if var.same_as(a)) for var in record.inputs]
            expected = tuple(record.reference(read, record.reference_sums(read)))
    elif "float" in layer:
        found = next(floats)
        layer, macs = found.name, found.macs
    written = binding.var.ty
    types = list(written.fields) if isinstance(written, tvm.ir.TupleType) else [written]
    outputs = [np.zeros([int(e) for e in t.shape], str(t.dtype)) for t in types]
    everything = (*inputs, *outputs)
    return Kernel(
        gvar.name_hint, layer, record is not None, macs, module[gvar], everything, len(outputs), expected
    )


def _array(argument: Any, generator: Any) -> np.ndarray:
    """The constant that the network passes, or something at random in its place."""
    if hasattr(argument, "value"):
        return argument.value.numpy()
    shape, dtype = [int(e) for e in argument.ty.shape], str(argument.ty.dtype)
    if "float" in dtype:
        return generator.standard_normal(shape).astype(dtype)
    return generator.integers(0, 2, shape, dtype)


def built(kernels: Sequence[Kernel], target: CompileTarget) -> Any:
    """These kernels compiled, as `bibench_tvm.compiling.build` does it: each under its symbol."""
    functions = {k.symbol: k.function.with_attr("global_symbol", k.symbol) for k in kernels}
    return generate_code(tvm.IRModule(functions), target.tvm)
