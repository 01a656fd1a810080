"""How a library runs on samples: on this machine, or under QEMU as another."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bibench_tvm.artifact.artifact import flatten, load_vm
from bibench_tvm.artifact.threads import run_where_threads_are
from bibench_tvm.compiling.processors import CompileTarget
from bibench_tvm.compiling.sampling import Samples

# An emulated network that takes longer than this hangs.
SAMPLE_LIMIT_S = 600.0

Runner = Callable[[Any, Samples], Iterator[list[np.ndarray]]]
"""Runs a library, a path or a `CLibrary`, on each sample; gives the outputs, tuples flattened, one sample
after the other."""


def runner_for(target: CompileTarget) -> tuple[str, Runner] | str:
    """(name of the backend, how it runs a library), or the sentence that says why there is none."""
    if target.is_host:
        return "host", run_here
    from rpc import emulated
    from rpc.emulation import arm32, cortex_m

    if target.name in cortex_m.MACHINES:
        if reason := cortex_m.missing():
            return f"{target.name} cannot be verified here: {reason}"
        name = target.name
        return f"qemu-system-arm -M {cortex_m.MACHINES[name].name}, as a library for C", _Emulated(
            lambda library, batch, limit: (
                cortex_m.run_network(library.network, batch, cpu=name, timeout_s=limit).outputs
            )
        )
    if not target.emulated_cpu:
        return f"{target.name} cannot be verified here: there is no emulator for it."

    if reason := arm32.missing() if target.runs_as_c else emulated.missing():
        return f"{target.name} cannot be verified here: {reason}"
    cpu = target.emulated_cpu
    if target.runs_as_c:
        return f"qemu-arm -cpu {cpu}, as a library for C", _Emulated(
            lambda library, batch, limit: arm32.run_network(library.network, batch, cpu=cpu, timeout_s=limit)
        )
    return f"qemu-aarch64 -cpu {cpu}", _Emulated(
        lambda library, batch, limit: emulated.run(library, batch, cpu=cpu, timeout_s=limit)
    )


def run_here(library: Path, samples: Samples) -> Any:
    """The outputs of the network for each sample, on this machine."""
    import tvm

    main = load_vm(library)["main"]
    for sample in samples:
        tensors = [tvm.runtime.tensor(x) for x in sample]
        yield flatten(run_where_threads_are(functools.partial(main, *tensors)))


@dataclass(frozen=True)
class _Emulated:
    """Runs under QEMU in batches of about 5 seconds: there is progress to show, and little to hold.

    run: the library on a batch, in so many seconds.
    """

    run: Callable[[Any, Samples, float], list[list[np.ndarray]]]

    def __call__(self, library: Any, samples: Samples) -> Iterator[list[np.ndarray]]:
        done, size = 0, 1
        while done < len(samples):
            batch = samples[done : done + size]
            start = time.monotonic()
            yield from self.run(library, batch, SAMPLE_LIMIT_S * len(batch))
            done += len(batch)
            size = max(1, min(2 * size, int(5 * len(batch) / (time.monotonic() - start))))
