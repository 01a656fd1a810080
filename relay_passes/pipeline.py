"""The compiler, in the order in which it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import tvm
from tvm import relax

from relay_passes.expand_prelu import expand_prelu
from relay_passes.expand_quantize import expand_quantize
from relay_passes.find_binary import FindBinary
from relay_passes.fold_batch_norm import fold_batch_norm
from relay_passes.fold_thresholds import fold_thresholds
from relay_passes.grow_halos import grow_halos
from relay_passes.layers import Layer
from relay_passes.lower_kernels import KernelCall, LowerKernels, Tunable
from relay_passes.mark_layers import MarkLayers
from relay_passes.mark_pools import mark_pools
from relay_passes.merge_scales import merge_scales
from relay_passes.plan_memory import plan_memory
from relay_passes.quantize_float_layers import QuantizeFloatLayers
from relay_passes.return_float_inputs import ReturnFloatInputs
from relay_passes.schedule_rest import schedule_rest
from relay_passes.sink_transposes import sink_transposes
from schedules.targets.kernel_target import KernelTarget, Tile
from schedules.task import Task


@dataclass(frozen=True)
class Lowered:
    """module: `call_tir` for every layer, Relax operators for the rest; emitted: see `LowerKernels`;
    observed: see `lower`."""

    module: tvm.IRModule
    layers: tuple[Layer, ...]
    kernel_calls: tuple[KernelCall, ...]
    emitted: tuple[tuple[str, str], ...]
    tunable: tuple[Tunable, ...]
    observed: tuple[str, ...] = ()


def lower(
    module: tvm.IRModule,
    layer_names: dict[str, str],
    target: KernelTarget,
    choose: Callable[[Task], Tile | None] = lambda task: None,
    *,
    probe: bool = False,
    observe: bool = False,
    ranges: Mapping[str, float] | None = None,
) -> Lowered:
    """module: as imported, one function `main`, static shapes, constants for parameters.

    choose, probe: see `LowerKernels`. observe: `main` returns besides its result what goes into the layers
    that stay float, those named in `observed`. ranges: the largest magnitude of each of these inputs, with
    which the layers are computed in int8.
    """
    find = FindBinary(target)
    inputs = ReturnFloatInputs()
    kernels = LowerKernels(target, choose, probe=probe)
    for phase in (
        # 1. One form for what stands for one thing.
        MarkLayers(layer_names),
        fold_batch_norm,
        expand_prelu,
        expand_quantize,
        relax.transform.FoldConstant(),
        # 2. Channels last from end to end.
        sink_transposes,
        # 3. What is binary.
        find,
        *([inputs] if observe else []),
        *([QuantizeFloatLayers(target, ranges, find.table)] if ranges is not None else []),
        fold_thresholds,
        grow_halos,
        merge_scales,
        mark_pools,
        # 4. Kernels.
        kernels,
    ):
        module = phase(module)
    return Lowered(
        module,
        tuple(find.table),
        tuple(kernels.calls),
        tuple(kernels.emitted),
        tuple(kernels.tunable),
        tuple(inputs.names),
    )


def finish(module: tvm.IRModule, target: tvm.target.Target) -> tvm.IRModule:
    """TVM's own lowering and fusion for what is not a layer, a schedule for it, and a plan of the memory."""
    with target:
        return tvm.transform.Sequential(
            [
                relax.transform.LegalizeOps(),
                relax.transform.AnnotateTIROpPattern(),
                relax.transform.FoldConstant(),
                relax.transform.FuseOps(),
                relax.transform.FuseTIR(),
                relax.transform.DeadCodeElimination(),
                schedule_rest,
                plan_memory,
            ]
        )(module)
