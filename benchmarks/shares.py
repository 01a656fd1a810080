"""Where the time of a network goes: layers in bits, layers of numbers, and glue, which is no layer."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

RUNS = 20
KINDS = ("binary", "float", "glue")


def shares(folder: Path, x: np.ndarray) -> dict[str, float]:
    """Of the time of all kernels of an artifact with one input, by kind; the medians of `RUNS`."""
    import tvm

    from bibench_tvm.artifact.artifact import MODEL, load, load_vm

    record = load(folder).record
    binarized = {layer.name: layer.binarized for layer in record.layers}
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

    machine["main"](given)
    machine.set_instrument(watch)
    for _ in range(RUNS):
        runs.append([])
        machine["main"](given)
    costs: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for same in zip(*runs, strict=True):
        symbol = same[0][0]
        names, number = layers[symbol], calls[symbol]
        calls[symbol] += 1
        layer = names[number] if number < len(names) else ""
        kind = ("binary" if binarized[layer] else "float") if layer else "glue"
        costs[kind] += median(taken for _, taken in same)
    return {kind: costs[kind] / costs.total() for kind in KINDS}
