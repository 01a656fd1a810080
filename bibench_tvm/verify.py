"""Does the artifact compute what was trained? Layer by layer on the same inputs, and end to end against the source.

The artifact's twin, the probe, has the same kernels and returns besides its result what went into each binary kernel
and what came out. From that:

- each kernel's bare integer sums are compared with the plain numpy convolution of the very bits it read: they must be
  equal, every one;
- what it wrote after its epilogue is compared with the same epilogue in numpy: packed bits that come from integers
  must be equal, floats may differ by rounding;
- the bits that it read are compared with the signs in the source framework: a float layer before a sign may round
  differently and flip one, and the number of flips is reported.

End to end, outputs are compared with the source framework's: the share of samples with the same top-1, and the largest
difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bibench_tvm.artifact import flatten, load_vm
from bibench_tvm.errors import BibenchError
from bibench_tvm.presets import CompileTarget
from relay_passes.lower_kernels import KernelCall

if TYPE_CHECKING:
    from bibench_tvm.importer import Imported

# Rounding of one fused epilogue in float32, relative to the largest value it wrote.
TOLERANCE = 1e-5

Runner = Callable[[Path, Sequence[Sequence[np.ndarray]]], list[list[np.ndarray]]]


def skipped(reason: str) -> dict[str, Any]:
    """The manifest's record of a verification that did not run."""
    return {"backend": None, "samples": 0, "agreement": None, "max_abs_error": None, "passed": None, "reason": reason}


@dataclass
class LayerCheck:
    name: str
    sums: int = 0
    wrong_sums: int = 0
    wrong_bits: int = 0
    max_abs_error: float = 0.0
    signs: int = 0
    flipped_signs: int = 0

    @property
    def passed(self) -> bool:
        return self.wrong_sums == 0 and self.wrong_bits == 0 and self.max_abs_error <= TOLERANCE

    def record(self) -> dict[str, Any]:
        return {**vars(self), "passed": self.passed}


def runner_for(target: CompileTarget, timeout_s: float) -> tuple[str, Runner] | str:
    """(name of the backend, how it runs a library on samples), or the sentence that says why there is none."""
    if target.is_host:
        return "host", _run_here
    if not target.emulated_cpu:
        return (
            f"{target.name} cannot be verified here: there is no TVM runtime for it under emulation. Its kernels are "
            f"tested one by one, see tests/schedules."
        )
    from rpc import emulated

    if reason := emulated.missing():
        return f"{target.name} cannot be verified here: {reason}"
    cpu = target.emulated_cpu
    return f"qemu-aarch64 -cpu {cpu}", lambda library, samples: emulated.run(
        library, samples, cpu=cpu, timeout_s=timeout_s
    )


def _run_here(library: Path, samples: Sequence[Sequence[np.ndarray]]) -> list[list[np.ndarray]]:
    import tvm

    vm = load_vm(library)
    return [flatten(vm["main"](*[tvm.runtime.tensor(x) for x in sample])) for sample in samples]


def verify(
    imported: Imported,
    probe: Path,
    calls: Sequence[KernelCall],
    backend: tuple[str, Runner],
    samples: Sequence[Sequence[np.ndarray]],
    labels: np.ndarray | None,
) -> dict[str, Any]:
    """The manifest's `verification`; samples[i][j]: input j of run i; labels: class of each sample, for accuracy."""
    name, run = backend
    results = run(probe, samples)
    checks = {call.layer: LayerCheck(call.layer) for call in calls}
    agreed, compared, worst = 0, 0, 0.0
    right_before, right_after = 0, 0
    for i, (sample, result) in enumerate(zip(samples, results)):
        reference = imported.reference(list(sample))
        outputs, seen = result[: len(imported.outputs)], result[len(imported.outputs) :]
        for ours, theirs in zip(outputs, reference.outputs):
            if ours.shape != theirs.shape:
                raise BibenchError(f"The artifact's output has shape {ours.shape}, and the source's {theirs.shape}.")
            worst = max(worst, _largest(ours, theirs))
        top_ours, top_theirs = _top(outputs[0]), _top(reference.outputs[0])
        agreed += int((top_ours == top_theirs).sum())
        compared += top_ours.size
        if labels is not None:
            expected = labels[i * top_ours.size : (i + 1) * top_ours.size]
            right_after += int((top_ours == expected).sum())
            right_before += int((top_theirs == expected).sum())
        for call in calls:
            taken = len(call.inputs) + len(call.outputs) + 1
            arrays, seen = seen[:taken], seen[taken:]
            _check_layer(checks[call.layer], call, arrays, reference.layer_inputs.get(call.layer))
    layers = [check.record() for check in checks.values()]
    record: dict[str, Any] = {
        "backend": name,
        "samples": len(samples),
        "agreement": agreed / compared,
        "max_abs_error": worst,
        "flipped_signs": sum(check.flipped_signs for check in checks.values()),
        "signs": sum(check.signs for check in checks.values()),
        "integers_exact": all(check.wrong_sums == 0 and check.wrong_bits == 0 for check in checks.values()),
        "passed": all(check.passed for check in checks.values()) and agreed >= 0.99 * compared,
        "reason": "",
        "layers": layers,
    }
    if labels is not None:
        record["accuracy"] = {"source": right_before / compared, "compiled": right_after / compared}
    return record


def _top(output: np.ndarray) -> np.ndarray:
    """The largest entry along the last axis, for every other index; for a scalar, itself."""
    return np.argmax(output, -1).ravel() if output.ndim else output.reshape(1)


def _largest(ours: np.ndarray, theirs: np.ndarray) -> float:
    if not ours.size:
        return 0.0
    difference = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
    # Where both are the same infinity or both NaN, they agree.
    same = (ours == theirs) | (np.isnan(difference) & np.isnan(ours.astype(np.float64)) & np.isnan(theirs))
    return float(np.where(same, 0.0, np.nan_to_num(difference, nan=np.finfo(np.float64).max)).max())


def _check_layer(
    check: LayerCheck, call: KernelCall, arrays: Sequence[np.ndarray], source: tuple[np.ndarray, ...] | None
) -> None:
    inputs = arrays[: len(call.inputs)]
    outputs = arrays[len(call.inputs) : -1]
    sums = arrays[-1]
    expected = call.reference_sums(inputs)
    check.sums += sums.size
    check.wrong_sums += int((sums != expected).sum())
    for ours, theirs, output in zip(outputs, call.reference(inputs), call.epilogue.outputs):
        if output.packing is not None and call.epilogue.is_integer(output.value):
            check.wrong_bits += int(np.bitwise_count(ours ^ theirs).sum())
        elif output.packing is None:
            scale = max(1.0, float(np.abs(theirs).max(initial=0.0)))
            check.max_abs_error = max(check.max_abs_error, _largest(ours, theirs) / scale)
    if source is not None:
        bits = call.activations(inputs[0]) > 0
        signs = _as_bits(source[0], call)
        if signs.size == bits.size:
            check.signs += bits.size
            check.flipped_signs += int((signs.reshape(bits.shape) != bits).sum())


def _as_bits(activation: np.ndarray, call: KernelCall) -> np.ndarray:
    """The source framework's activation, channels last, as the bits that stand for it."""
    if call.op.startswith("conv"):
        activation = np.moveaxis(activation, 1, -1)
    return activation != 0 if call.zero_one else activation >= 0
