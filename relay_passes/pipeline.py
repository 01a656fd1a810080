"""The compiler, in the order in which it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import tvm
from tvm import relax

from relay_passes.drop_empty import drop_empty
from relay_passes.expand_norms import expand_norms
from relay_passes.expand_powers import expand_powers
from relay_passes.expand_prelu import expand_prelu
from relay_passes.expand_quantize import expand_quantize
from relay_passes.find_binary import find_binary
from relay_passes.fold_batch_norm import fold_batch_norm
from relay_passes.fold_thresholds import fold_thresholds
from relay_passes.grow_halos import grow_halos
from relay_passes.halve_float_layers import halve_float_layers, reached_by_half
from relay_passes.ir.decided import Decided
from relay_passes.ir.layers import CONVOLUTIONS, Layer
from relay_passes.kernels.kernel import KernelCall, Tunable
from relay_passes.legalize_resize import RESIZES
from relay_passes.lower_kernels import lower_kernels
from relay_passes.mark_layers import mark_layers
from relay_passes.mark_pools import mark_pools
from relay_passes.mark_rows import mark_rows
from relay_passes.merge_reshapes import merge_reshapes
from relay_passes.merge_scales import merge_scales
from relay_passes.move_words import move_words
from relay_passes.plan_memory import plan_memory
from relay_passes.quantize_float_layers import quantize_float_layers
from relay_passes.reduce_sums import reduce_sums
from relay_passes.return_float_inputs import return_float_inputs
from relay_passes.schedule_rest import schedule_rest
from relay_passes.sink_transposes import sink_transposes
from relay_passes.split_concats import split_concats
from schedules.records.kernel_task import Choose
from schedules.targets.kernel_target import KernelTarget

Watch = Callable[[str, tvm.IRModule], None]


@dataclass(frozen=True, kw_only=True)
class Lowered:
    """A network whose layers are calls of kernels, and what was found on the way."""

    module: tvm.IRModule  # `call_tir` for every layer, Relax operators for the rest
    layers: tuple[Layer, ...]
    kernel_calls: tuple[KernelCall, ...]
    emitted: tuple[tuple[str, str], ...]  # see `lower_kernels.Kernels`
    tunable: tuple[Tunable, ...]
    observed: tuple[str, ...] = ()  # see `lower`
    behind_half: frozenset[str | int] = frozenset()  # see `reached_by_half`
    decided: tuple[Decided, ...] = ()  # see `lower_kernels.Kernels`


def lower(
    module: tvm.IRModule,
    layer_names: Mapping[str, str],
    target: KernelTarget,
    choose: Choose = lambda task: None,
    *,
    probe: bool = False,
    observe: bool = False,
    ranges: Mapping[str, float] | None = None,
    half: bool = False,
    watch: Watch = lambda phase, module: None,
) -> Lowered:
    """module: as imported, one function `main`, static shapes, constants for parameters.

    choose, probe: see `lower_kernels`. observe: `main` returns besides its result what goes into the layers
    that stay float, those named in `observed`. ranges: the largest magnitude of each of these inputs, with
    which the layers are computed in int8. half: they are computed in float16 instead, where that pays, on a
    target that has a `half_tile`. watch: is shown the module after each phase.
    """
    # 1. One form for what stands for one thing.
    module = _through(
        module,
        watch,
        ("mark_layers", lambda mod: mark_layers(mod, layer_names)),
        ("drop_empty", drop_empty),
        ("fold_batch_norm", fold_batch_norm),
        ("expand_prelu", expand_prelu),
        ("expand_norms", expand_norms),
        ("expand_quantize", expand_quantize),
        ("fold_constants", relax.transform.FoldConstant()),
        # 2. Channels last from end to end.
        ("sink_transposes", sink_transposes),
        # What several layers read as its signs has them once, and is packed once.
        ("share_values", relax.transform.EliminateCommonSubexpr()),
    )
    # 3. What is binary.
    module, layers = find_binary(module, target)
    watch("find_binary", module)
    observed: tuple[str, ...] = ()
    behind_half: frozenset[str | int] = frozenset()
    if observe:
        module, observed = return_float_inputs(module)
        watch("return_float_inputs", module)
    if ranges is not None:
        module, layers = quantize_float_layers(module, target, ranges, layers)
        watch("quantize_float_layers", module)
    if half:
        module, layers = halve_float_layers(module, target, layers)
        behind_half = reached_by_half(module)
        watch("halve_float_layers", module)
    module = _through(
        module,
        watch,
        ("expand_powers", expand_powers),
        ("split_concats", split_concats),
        ("move_words", move_words),
        ("reduce_sums", reduce_sums),
        ("fold_thresholds", fold_thresholds),
        ("grow_halos", grow_halos),
        ("merge_scales", merge_scales),
        ("mark_pools", mark_pools),
        ("mark_rows", mark_rows),
    )
    # 4. Kernels.
    own = [layer for layer in layers if not layer.binarized and layer.geometry is None]
    others = [layer.name for layer in own if f"relax.nn.{layer.op}" in CONVOLUTIONS]
    kernels = lower_kernels(module, target, choose, probe=probe, others=others)
    watch("lower_kernels", kernels.module)
    return Lowered(
        module=kernels.module,
        layers=layers,
        kernel_calls=kernels.calls,
        emitted=kernels.emitted,
        tunable=kernels.tunable,
        observed=observed,
        behind_half=behind_half,
        decided=kernels.decided,
    )


def finish(
    module: tvm.IRModule,
    target: tvm.target.Target,
    kernels: KernelTarget,
    watch: Watch = lambda phase, module: None,
) -> tvm.IRModule:
    """TVM's own lowering and fusion for what is not a layer, a schedule for it, and a plan of the memory.

    watch: as for `lower`.
    """
    fuse = tvm.transform.Sequential(
        [
            relax.transform.LegalizeOps(RESIZES),
            relax.transform.AnnotateTIROpPattern(),
            relax.transform.FoldConstant(),
            relax.transform.FuseOps(),
            relax.transform.FuseTIR(),
            relax.transform.RewriteDataflowReshape(),  # scheduled, one is not known for what it is any more
            relax.transform.DeadCodeElimination(),
        ]
    )
    schedule = partial(schedule_rest, target=kernels)
    with target:
        return _through(
            module,
            watch,
            ("merge_reshapes", merge_reshapes),
            ("fuse_rest", fuse),
            ("schedule_rest", schedule),
            ("plan_memory", plan_memory),
        )


def _through(
    module: tvm.IRModule, watch: Watch, *passes: tuple[str, Callable[[tvm.IRModule], tvm.IRModule]]
) -> tvm.IRModule:
    for name, run in passes:
        module = run(module)
        watch(name, module)
    return module
