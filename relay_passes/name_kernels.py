"""Which call of a kernel computes which layer, for those who time a compiled network call by call.

A kernel that several layers share is one function, so its name alone does not tell. The calls of one kernel
stay in their order through all that comes after `lower_kernels`; whoever watches the network run pairs the
n-th call of a kernel with the n-th entry here of its name.
"""

from __future__ import annotations

import re
from collections import deque

import tvm
from tvm import relax

from relay_passes.ir.rewrite import bindings
from relay_passes.pipeline import Lowered

_TVM_LAYER = re.compile(r"(^|_)(conv[123]d|conv[123]d_transpose|matmul)\d*(_|$)")


def name_kernels(finished: tvm.IRModule, lowered: Lowered) -> list[dict[str, str]]:
    """`kernel` and `layer` of each call in the finished `main` that computes a layer, in order.

    Layers without a kernel of ours have one of TVM's, whose names begin with their operators; where these are
    not as many as such layers, they are left without a layer.
    """
    waiting: dict[str, deque[str]] = {}
    for kernel, layer in lowered.emitted:
        waiting.setdefault(kernel, deque()).append(layer)
    values = [binding.value for binding in bindings(finished)]
    calls = [
        str(value.op.name_hint)
        for value in values
        if isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.GlobalVar)
    ]
    ours = {layer for _, layer in lowered.emitted}
    others = [layer.name for layer in lowered.layers if layer.name not in ours]
    theirs = [call for call in calls if call not in waiting and _TVM_LAYER.search(call)]
    if len(theirs) == len(others):
        for kernel, layer in zip(theirs, others, strict=True):
            waiting.setdefault(kernel, deque()).append(layer)
    named = [(call, waiting[call].popleft()) for call in calls if call in waiting]
    return [{"kernel": kernel, "layer": layer} for kernel, layer in named if layer]
