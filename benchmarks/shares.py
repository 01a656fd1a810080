"""Where the time of a network goes, kernel by kernel: layers in bits, layers of numbers, and glue, which
is no layer; and how far layers in bits are from what a core can do in its registers."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bibench_tvm.artifact.manifest import LayerRecord

RUNS = 20
KINDS = ("binary", "float", "glue")
LONG_S = 5e-6  # whose products take less at the roof is about its overhead


@dataclass(frozen=True)
class Call:
    """A call of a kernel in a run: what layer it computes, if any, and its median seconds."""

    kernel: str
    layer: LayerRecord | None
    seconds: float

    @property
    def kind(self) -> str:
        return "glue" if self.layer is None else "binary" if self.layer.binarized else "float"


def timed(folder: Path, x: np.ndarray) -> tuple[list[Call], float]:
    """(all kernels' calls in a run of an artifact with one input, products a second of `limit.roof`)."""
    import tvm

    from bibench_tvm.artifact.artifact import MODEL, load, load_vm
    from bibench_tvm.compiling.processors import resolve_target
    from bibench_tvm.measuring import limit

    record = load(folder).record
    known = {layer.name: layer for layer in record.layers}
    layers: dict[str, list[str]] = defaultdict(list)
    for called in record.kernels:
        layers[called.kernel].append(called.layer)
    machine, given = load_vm(folder / MODEL), tvm.runtime.tensor(x)
    runs: list[list[tuple[str, int]]] = []
    start = 0

    def watch(_function: Any, symbol: str, before: bool, *_: Any) -> None:
        nonlocal start
        taken = time.perf_counter_ns() - start
        if not before and not symbol.startswith("vm.builtin."):
            runs[-1].append((symbol, taken))
        start = time.perf_counter_ns()

    target = resolve_target("host")
    roof, roofs = limit.roof("binary", target), []
    machine["main"](given)
    machine.set_instrument(watch)
    for _ in range(RUNS):
        runs.append([])
        machine["main"](given)
        before = time.perf_counter_ns()
        roof()
        roofs.append(time.perf_counter_ns() - before)
    number: Counter[str] = Counter()
    calls = []
    for same in zip(*runs, strict=True):
        symbol = same[0][0]
        names, nth = layers[symbol], number[symbol]
        number[symbol] += 1
        layer = known[names[nth]] if nth < len(names) else None
        calls.append(Call(symbol, layer, median(taken for _, taken in same) * 1e-9))
    return calls, limit.products_a_call("binary", target) / (median(roofs) * 1e-9)


def shares(calls: Sequence[Call]) -> dict[str, float]:
    """Of the time of all kernels, by kind."""
    total = sum(call.seconds for call in calls)
    return {kind: sum(call.seconds for call in calls if call.kind == kind) / total for kind in KINDS}


def of_roof(calls: Sequence[Call], rate: float) -> dict[str, float]:
    """Layer -> its products by its time, of `rate` products a second; the layers in bits that have at least
    `LONG_S` of products, but depthwise ones, which have too few of each sum for any popcount."""
    seconds: dict[str, float] = defaultdict(float)
    products: dict[str, int] = {}
    for call in calls:
        layer = call.layer
        if layer is None or not layer.binarized or (layer.geometry and layer.geometry.groups > 1):
            continue
        seconds[layer.name] += call.seconds
        products[layer.name] = layer.macs
    return {name: macs / rate / seconds[name] for name, macs in products.items() if macs >= LONG_S * rate}
