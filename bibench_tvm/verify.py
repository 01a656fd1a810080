"""Does the artifact compute what was trained? Layer by layer on the same inputs, and end to end.

The artifact's twin, the probe, has the same kernels and returns besides its result what went into each
binary kernel and what came out. From that:

- each kernel's bare integer sums are compared with the plain numpy convolution of the very bits it read: they
  must be equal, every one;
- what it wrote after its epilogue is compared with the same epilogue in numpy: packed bits that come from
  integers must be equal, floats may differ by rounding;
- the bits that it read are compared with the signs in the source framework: a float layer before a sign may
  round differently and flip one, and the number of flips is reported.

End to end, the outputs of the artifact itself are compared with the source framework's: the share of samples
with the same top-1, which has to be 99 %, and the largest difference, which has to be rounding on 99 % of the
samples where every layer's signs could be compared and none flipped.

With float layers in int8 the sums of these are integers, too, and every one is compared. Their rounding is
meant, and moves everything after it: end to end, agreement and difference are reported and nothing is
demanded of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bibench_tvm.calibrate import Samples, run_here
from bibench_tvm.errors import BibenchError
from bibench_tvm.presets import CompileTarget
from relay_passes.lower_kernels import KernelCall
from schedules.bits import unpack

if TYPE_CHECKING:
    from bibench_tvm.importer import Imported, ReferenceRun

# Rounding in float32, relative to the largest value: of one fused epilogue, and of a whole network.
TOLERANCE = 1e-5
END_TO_END_TOLERANCE = 1e-3
# An emulated network that takes longer than this hangs.
SAMPLE_LIMIT_S = 600.0

Runner = Callable[[Path, Samples], Iterator[list[np.ndarray]]]
"""Runs a library on each sample; gives the outputs, tuples flattened, one sample after the other."""


def skipped(reason: str) -> dict[str, Any]:
    """The manifest's record of a verification that did not run."""
    nothing = dict.fromkeys(("backend", "agreement", "max_abs_error", "passed"))
    return {**nothing, "samples": 0, "reason": reason}


@dataclass
class LayerCheck:
    """Sums and bits have to be exact; a max_abs_error is relative to the largest value."""

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


def runner_for(target: CompileTarget) -> tuple[str, Runner] | str:
    """(name of the backend, how it runs a library), or the sentence that says why there is none."""
    if target.is_host:
        return "host", run_here
    if not target.emulated_cpu:
        return (
            f"{target.name} cannot be verified here: there is no TVM runtime for it under emulation. Its "
            "kernels are tested one by one, see tests/schedules."
        )
    from rpc import emulated

    if reason := emulated.missing():
        return f"{target.name} cannot be verified here: {reason}"
    return f"qemu-aarch64 -cpu {target.emulated_cpu}", _Emulated(target.emulated_cpu)


@dataclass(frozen=True)
class _Emulated:
    """Runs under QEMU in batches of about 5 seconds: there is progress to show, and little to hold."""

    cpu: str

    def __call__(self, library: Path, samples: Samples) -> Iterator[list[np.ndarray]]:
        from rpc import emulated

        done, size = 0, 1
        while done < len(samples):
            batch = samples[done : done + size]
            start = time.monotonic()
            yield from emulated.run(library, batch, cpu=self.cpu, timeout_s=SAMPLE_LIMIT_S * len(batch))
            done += len(batch)
            size = max(1, min(2 * size, int(5 * len(batch) / (time.monotonic() - start))))


class Comparison:
    """What has been compared so far, sample by sample."""

    def __init__(self, calls: Sequence[KernelCall]):
        self.calls = calls
        self.checks = {call.layer: LayerCheck(call.layer) for call in calls}
        self.int8 = any(call.packing.quantizer for call in calls)
        self.samples = self.tops = self.agreeing = self.unexplained = 0
        self.right_before = self.right_after = 0
        self.max_abs_error = 0.0

    def add(
        self,
        reference: ReferenceRun,
        outputs: Sequence[np.ndarray],
        seen: Sequence[np.ndarray],
        labels: np.ndarray | None,
    ) -> None:
        """outputs: the artifact's; seen: what the probe returned besides its own, call by call."""
        flipped = False
        for call in self.calls:
            taken = len(call.inputs) + len(call.outputs) + 1
            arrays, seen = seen[:taken], seen[taken:]
            flipped |= _check_layer(
                self.checks[call.layer], call, arrays, reference.layer_inputs.get(call.layer)
            )
        close = True
        for ours, theirs in zip(outputs, reference.outputs, strict=True):
            if ours.shape != theirs.shape:
                raise BibenchError(
                    f"The artifact's output has shape {ours.shape}, and the source's {theirs.shape}."
                )
            difference = _largest(ours, theirs)
            self.max_abs_error = max(self.max_abs_error, difference)
            close &= difference <= END_TO_END_TOLERANCE * _scale(theirs)
        self.unexplained += not close and not flipped
        scores = reference.outputs[0]
        top_ours, top_theirs = _top(outputs[0]), _top(scores)
        # Where two scores are equal but for rounding, either is the top.
        lead = _at(scores, top_theirs) - _at(scores, top_ours)
        self.agreeing += int(((top_ours == top_theirs) | (lead <= TOLERANCE * _scale(scores))).sum())
        if labels is not None:
            expected = labels[self.tops : self.tops + top_ours.size]
            self.right_after += int((top_ours == expected).sum())
            self.right_before += int((top_theirs == expected).sum())
        self.tops += top_ours.size
        self.samples += 1

    def record(self, backend: str, *, with_accuracy: bool, trouble: str = "") -> dict[str, Any]:
        """The manifest's `verification`; trouble: what stopped it on the way, which makes it fail."""
        checks = self.checks.values()
        if trouble:
            reason = trouble
        elif wrong := [check.name for check in checks if not check.passed]:
            reason = f"These layers do not compute what they should: {', '.join(wrong)}."
        elif self.int8:
            reason = ""
        elif self.unexplained > 0.01 * self.samples:
            reason = (
                f"On {self.unexplained} of {self.samples} samples the outputs differ by up to "
                f"{self.max_abs_error:.2g}, though every sign is the same."
            )
        elif self.agreeing < 0.99 * self.tops:
            reason = f"Top-1 agrees on {self.agreeing / self.tops:.1%}, and 99% is the least."
        else:
            reason = ""
        record: dict[str, Any] = {
            "backend": backend,
            "samples": self.samples,
            "agreement": self.agreeing / self.tops if self.tops else None,
            "max_abs_error": self.max_abs_error if self.samples else None,
            "flipped_signs": sum(check.flipped_signs for check in checks),
            "signs": sum(check.signs for check in checks),
            "integers_exact": all(check.wrong_sums == check.wrong_bits == 0 for check in checks),
            "passed": not reason,
            "reason": reason,
            "layers": [check.record() for check in checks],
        }
        if with_accuracy and self.tops:
            record["accuracy"] = {
                "source": self.right_before / self.tops,
                "compiled": self.right_after / self.tops,
            }
        return record


def compare_outputs(
    ours: Sequence[Sequence[np.ndarray]], theirs: Sequence[Sequence[np.ndarray]], labels: np.ndarray | None
) -> dict[str, Any]:
    """Two versions of a network on the same samples: the share of samples with the same top-1, the largest
    difference, and with labels the top-1 accuracy of each."""
    top_ours, top_theirs = (np.concatenate([_top(outputs[0]) for outputs in side]) for side in (ours, theirs))
    differences = [
        _largest(a, b) for x, y in zip(ours, theirs, strict=True) for a, b in zip(x, y, strict=True)
    ]
    compared: dict[str, Any] = {
        "agreement": float((top_ours == top_theirs).mean()),
        "max_abs_error": max(differences),
    }
    if labels is not None:
        expected = labels[: len(top_ours)]
        compared["accuracies"] = [float((top == expected).mean()) for top in (top_ours, top_theirs)]
    return compared


def verify(
    imported: Imported,
    library: Path,
    probe: Path,
    calls: Sequence[KernelCall],
    backend: tuple[str, Runner],
    samples: Samples,
    labels: np.ndarray | None,
    advance: Callable[[], None],
) -> dict[str, Any]:
    """The manifest's `verification`.

    samples[i][j]: input j of run i; labels: the class of each sample, for the accuracy; advance: called after
    each sample. A run that breaks off is a verification that failed.
    """
    name, run = backend
    comparison = Comparison(calls)
    trouble = ""
    results, probed = run(library, samples), run(probe, samples)
    try:
        for sample, outputs, seen in zip(samples, results, probed, strict=True):
            comparison.add(imported.reference(list(sample)), outputs, seen[len(imported.outputs) :], labels)
            advance()
    except RuntimeError as error:  # the emulator's EmulationFailed and the virtual machine's own
        trouble = f"It broke off in the batch after sample {comparison.samples}: {error}"
    return comparison.record(name, with_accuracy=labels is not None, trouble=trouble)


def _top(output: np.ndarray) -> np.ndarray:
    """The largest entry along the last axis, for every other index; for a scalar, itself."""
    return np.argmax(output, -1).ravel() if output.ndim else output.reshape(1)


def _at(output: np.ndarray, top: np.ndarray) -> np.ndarray:
    """The entries of `output` at the indices that `_top` gave, in float64."""
    rows = output.astype(np.float64).reshape(len(top), -1)
    return rows[np.arange(len(top)), top if output.ndim else 0]


def _scale(values: np.ndarray) -> float:
    """The largest finite magnitude, and not less than 0.01, where rounding is of what cancelled out."""
    magnitudes = np.abs(values.astype(np.float64))
    return max(0.01, float(magnitudes[np.isfinite(magnitudes)].max(initial=0.0)))


def _largest(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference; infinities and NaN that are the same in both do not differ."""
    if not ours.size:
        return 0.0
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    with np.errstate(invalid="ignore"):
        difference = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    return float(np.nan_to_num(difference, nan=np.finfo(np.float64).max).max())


def _check_layer(
    check: LayerCheck, call: KernelCall, arrays: Sequence[np.ndarray], source: tuple[np.ndarray, ...] | None
) -> bool:
    """Whether a sign that this layer read was flipped, or may have been since the source does not show it."""
    inputs = arrays[: len(call.inputs)]
    outputs = arrays[len(call.inputs) : -1]
    sums = arrays[-1]
    check.sums += sums.size
    expected = call.reference_sums(inputs)
    check.wrong_sums += int((sums != expected).sum())
    written = call.reference(inputs, expected)
    for ours, theirs, output in zip(outputs, written, call.epilogue.outputs, strict=True):
        if output.packing is None:
            check.max_abs_error = max(check.max_abs_error, _largest(ours, theirs) / _scale(theirs))
        elif output.packing.quantizer:
            steps = unpack(ours, output.packing).astype(int) - unpack(theirs, output.packing)
            check.wrong_bits += int((np.abs(steps) > 1).sum())  # what is next to a tie may fall either way
        elif call.epilogue.is_integer(output.value):
            check.wrong_bits += int(np.bitwise_count(ours ^ theirs).sum())
    if source is None:
        return True
    if call.packing.quantizer:
        return False
    bits = call.activations(inputs[0]) > 0
    theirs = np.moveaxis(source[0], 1, -1) if call.op.startswith("conv") else source[0]
    if theirs.size != bits.size:
        return True
    # ONNX's Sign has a third value, 0 at 0.
    signs = (theirs * call.plane > 0 if call.plane else theirs != 0) if call.zero_one else np.sign(theirs)
    flipped = int((signs.reshape(bits.shape) != (bits if call.zero_one else 2 * bits - 1)).sum())
    check.signs += bits.size
    check.flipped_signs += flipped
    return flipped > 0
