"""One sample after the other: what the artifact read and wrote beside what the source makes of it.

The artifact's twin, the probe, has the same kernels and returns besides its result what went into each
binary kernel and what came out. The source is run from these integers: in place of its own operand each
binary layer gets the values that the artifact's bits stand for, so that one sign that flipped changes nothing
behind its layer, and everything is compared on the same inputs.

- A kernel's bare sums are what the source's own operator makes of the bits that the kernel read and of the
  signs of the source's own weights: equal, every one.
- What it wrote after its epilogue is compared with the same epilogue in numpy.
- The bits that it read are the signs of the source. One that is not is excused where rounding may have
  flipped it, see `rounding.py`, and where the source has an exact 0 and the layer's notes say so.
- Signs before layers that stay float are the artifact's in the source, too, see `decided.py`.
- Every output of every sample is that of the source but for rounding, in shape and dtype.

Layers in int8 are given to the source as what their integers stand for, weights too; so all of this holds for
them, except that the float network is another one. Layers in float16 round 2**13 times as coarsely as in
float32, and all that rounding may explain is so many times as much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from bibench_tvm.compiling.decided import FloatDecisions
from bibench_tvm.compiling.layer_check import LayerCheck
from bibench_tvm.compiling.operands import (
    TOLERANCE,
    Read,
    add_up,
    in_source,
    join,
    middle_of,
    of_phase,
    place_among,
    plane_in_source,
    side_of,
    signs_of,
    two_sides,
    value_of,
)
from bibench_tvm.compiling.output_check import OutputCheck
from bibench_tvm.compiling.rounding import IN_HALF, Rounding, largest_difference, magnitude, same_structure
from bibench_tvm.compiling.sampling import sample_inputs
from bibench_tvm.importer import Imported, Injection, ReferenceRun
from relay_passes import Lowered
from relay_passes.ir.notes import SIGN_NOTE
from relay_passes.ir.weight_planes import WeightPlanes, weight_planes
from relay_passes.ir.weights import binary_weights
from relay_passes.kernels.kernel import KernelCall
from relay_passes.quantize_float_layers import quantize_weights
from schedules.parts.bits import unpack

_HALF_A_STEP = 0.51  # of a quantizer, and a little for rounding


class Comparison:
    """What has been compared so far."""

    def __init__(self, imported: Imported, lowered: Lowered):
        self.imported, self.calls = imported, lowered.kernel_calls
        self.reference = imported.reference
        self.in_half = lowered.behind_half
        self.rounding = Rounding(imported.reference, self.in_half)
        # Float16 decides on so much that nothing of it could be told from a fault.
        decided = () if self.in_half else lowered.decided
        self.floats = FloatDecisions(imported.reference, decided, self.rounding)
        self.checks = {call.layer.name: LayerCheck(call.layer.name) for call in self.calls}
        for layer in lowered.layers:
            if layer.binarized and layer.name not in self.checks:
                self.checks[layer.name] = LayerCheck(layer.name, reason="No kernel of it was found")
        self.zero_is_one = {layer.name for layer in lowered.layers if SIGN_NOTE in layer.notes}
        self.int8 = any(call.layer.packing.quantizer for call in self.calls)
        self.outputs = OutputCheck(imported.reference, self.rounding)
        self.structure = ""
        self._values: dict[tuple[str, int], float] = {}
        self._planes: dict[str, dict[int, np.ndarray]] = {}  # of weights, of a layer, in its source's layout
        self._as_read: dict[str, np.ndarray | None] = {}  # of weights that are nearly few numbers
        self._weights: dict[str, tuple[np.ndarray, np.ndarray | None, np.ndarray | None]] = {}

    def add(
        self,
        values: list[np.ndarray],
        outputs: Sequence[np.ndarray],
        seen: Sequence[np.ndarray],
        labels: np.ndarray | None,
    ) -> None:
        """outputs: the artifact's; seen: what the probe returned besides its own, call by call, and then what
        float layers read."""
        plain = self.reference(values)
        injections: dict[str, Injection] = {}
        parts: dict[str, list[tuple[KernelCall, list[Read]]]] = {}
        checked: list[tuple[KernelCall, Sequence[np.ndarray], list[Read] | None]] = []
        for call in self.calls:
            taken = len(call.inputs) + len(call.outputs) + 1
            arrays, seen = seen[:taken], seen[taken:]
            found = self._reads(call, arrays)
            if isinstance(found, str):
                self.checks[call.layer.name].reason = found
                checked.append((call, arrays, None))
            else:
                parts.setdefault(call.layer.name, []).append((call, found))
                checked.append((call, arrays, found))
        read = {layer: join(found) for layer, found in parts.items()}
        same = True
        for layer, reads in read.items():
            call = parts[layer][0][0]
            injections[layer], as_is = self._injection(call, reads, plain.layer_inputs[layer])
            same &= as_is
        decided = self.floats.injections(seen[: len(self.floats.decided)], plain)
        same &= all(np.array_equal(i.operands[0], plain.layer_inputs[name][0]) for name, i in decided.items())
        injections |= decided
        run = plain if same else self.reference(values, injections)
        for call, arrays, own in checked:
            self._check_kernel(self.checks[call.layer.name], call, arrays, own)
        for layer, reads in read.items():
            call = parts[layer][0][0]
            self._check_operands(self.checks[layer], call, reads, run, values, injections)
        self.floats.check(decided, run, values, injections)
        self.structure = self.structure or same_structure(outputs, plain.outputs)
        if not self.structure:
            self.outputs.compare(outputs, plain, run, values, injections)
            self.outputs.count_tops(outputs[0], plain.outputs[0], labels)
        self.outputs.samples += 1

    # ---- from the artifact's layout to the source's

    def _reads(self, call: KernelCall, arrays: Sequence[np.ndarray]) -> list[Read] | str:
        """One for each activation operand, or the sentence that says why there is none."""
        layer = self.reference.layers.get(call.layer.name)
        if layer is None:
            return "The source has no layer of that name"
        if len(layer.shapes) != (2 if call.weights is None else 1):
            return f"The source has it with {len(layer.shapes)} operands that are activations"
        images = [call.activations(arrays[operand], operand) for operand in call.order_in_source]
        reads = []
        for position, image in enumerate(images):
            read = in_source(image, layer, position)
            if read is None:
                return (
                    f"It reads {image.size} numbers, where the operand in the source is "
                    f"{layer.shapes[position]}"
                )
            reads.append(read)
        return reads

    def _injection(
        self, call: KernelCall, reads: Sequence[Read], theirs: tuple[np.ndarray, ...]
    ) -> tuple[Injection, bool]:
        """What the source gets for this layer, and whether that is what it has anyway."""
        if quantizer := call.layer.packing.quantizer:
            [read] = reads
            values = read.codes.astype(np.float32) * np.float32(quantizer.scale)
            return Injection((values,), self._weights_of(call)[1]), False
        operands, same = [], True
        if call.part:
            [read], [theirs_] = reads, theirs
            operand = read.codes.astype(theirs_.dtype)
            return Injection((operand,)), bool((operand == theirs_)[read.inside].all())
        for position, (read, theirs_) in enumerate(zip(reads, theirs, strict=True)):
            value = self._value(call, position, theirs_)
            operands.append((read.codes * value + (read.codes != 0) * middle_of(call)).astype(theirs_.dtype))
            signs = signs_of(theirs_, call, position, value)
            same &= bool((signs == read.codes)[read.inside].all())
        weights = self._weights_as_read(call)
        return Injection(tuple(operands), weights), same and weights is None

    def _weights_as_read(self, call: KernelCall) -> np.ndarray | None:
        """Weights that are nearly few numbers of each output channel, as the layer's notes say: as they were
        read. None where they are so exactly."""
        name = call.layer.name
        if name not in self._as_read:
            self._as_read[name] = None
            if call.weights is not None:
                axis = self.reference.layers[name].weight_axis or 0
                weights = np.moveaxis(self.reference.weights(name), axis, 0)
                found = binary_weights(weights)
                read = weight_planes(weights) if isinstance(found, str) else found
                if read is not None and read.moved:
                    planes = read.planes if isinstance(read, WeightPlanes) else (read,)
                    values = np.sum([plane.values for plane in planes], axis=0, dtype=weights.dtype)
                    self._as_read[name] = np.moveaxis(values, 0, axis)
        return self._as_read[name]

    def _value(self, call: KernelCall, position: int, theirs: np.ndarray) -> float:
        """What a bit 1 stands for in the source: that of its two values which is not 0, or the positive; of
        other values, how far it lies from their middle."""
        if call.levels:
            return (call.levels[1] - call.levels[0]) / 2
        key = (call.layer.name, position)
        if key not in self._values:
            found = value_of(theirs, call, position)
            for values in sample_inputs(self.imported, 2, None) if not found else []:
                theirs = self.reference(values).layer_inputs[call.layer.name][position]
                found = found or value_of(theirs, call, position)
            self._values[key] = found or 1.0
        return self._values[key]

    def _plane_of_weights(self, call: KernelCall) -> np.ndarray:
        """The signs of one of several planes in the layout of the source, if its weights are a sum of them
        all; each output channel with scales of its own, which the outputs are compared for."""
        name = call.layer.name
        theirs = self.reference.weights(name)
        axis = self.reference.layers[name].weight_axis or 0
        last = np.moveaxis(theirs, axis, 0)
        if name not in self._planes:
            planes: dict[int, list[KernelCall]] = {}
            for c in self.calls:
                if c.layer.name == name and not c.of_input:
                    planes.setdefault(c.weight_plane, []).append(c)
            found = {index: plane_in_source(calls, last.shape) for index, calls in planes.items()}
            self._planes[name] = found
            if not add_up(last, list(found.values())):
                self.checks[name].reason = "Its planes of weights do not add up to the source's"
        return np.moveaxis(self._planes[name][call.weight_plane], 0, axis).astype(theirs.dtype)

    def _weights_of(self, call: KernelCall) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """(integers in the layout of the source, what they stand for in int8, bool [O]: channels of 0)."""
        if call.layer.name not in self._weights:
            weights = self.reference.weights(call.layer.name)
            axis = self.reference.layers[call.layer.name].weight_axis or 0
            last = np.moveaxis(weights, axis, 0)
            if call.layer.packing.quantizer:
                integers, scales = quantize_weights(last)
                meant = integers * scales.reshape(-1, *[1] * (last.ndim - 1))
                meant = np.moveaxis(meant.astype(np.float32), 0, axis)
                self._weights[call.layer.name] = np.moveaxis(integers, 0, axis), meant, None
            else:
                empty = (last.reshape(len(last), -1) == 0).all(1)
                signs = np.moveaxis(two_sides(last), 0, axis)
                self._weights[call.layer.name] = signs, None, empty
        return self._weights[call.layer.name]

    # ---- a layer

    def _check_kernel(
        self, check: LayerCheck, call: KernelCall, arrays: Sequence[np.ndarray], reads: list[Read] | None
    ) -> None:
        inputs, sums = arrays[: len(call.inputs)], arrays[-1]
        outputs = arrays[len(call.inputs) : -1]
        if reads is not None:
            check.sums += sums.size
            check.wrong_sums += self._wrong_sums(call, reads, sums)
        written = call.reference(inputs, sums)
        for ours, theirs, output in zip(outputs, written, call.epilogue.outputs, strict=True):
            if output.packing is None:
                error = largest_difference(ours, theirs) / max(0.01, magnitude(theirs))
                check.max_abs_error = max(check.max_abs_error, error)
            elif output.packing.quantizer:
                steps = unpack(ours, output.packing).astype(int) - unpack(theirs, output.packing)
                check.wrong_bits += int((np.abs(steps) > 1).sum())  # next to a tie it may fall either way
            elif call.epilogue.is_integer(output.value):
                check.wrong_bits += int(np.bitwise_count(ours ^ theirs).sum())

    def _wrong_sums(self, call: KernelCall, reads: Sequence[Read], sums: np.ndarray) -> int:
        weights, empty = None, None
        if call.weights is not None:
            if call.weight_plane:
                weights = self._plane_of_weights(call)
            else:
                weights, _, empty = self._weights_of(call)
            if call.of_input:
                weights, empty = np.ones_like(weights), None
        expected = self.reference.sums(call.layer.name, tuple(read.codes for read in reads), weights)
        if self.reference.layers[call.layer.name].convolution:
            expected = np.moveaxis(expected, 1, -1)
        if self.reference.layers[call.layer.name].weights_first:
            expected = expected.swapaxes(-1, -2)
        if call.of_input:
            expected = expected[..., : sums.shape[-1]]
        if call.phase:
            expected, sums = of_phase(expected, sums, call.phase)
        if expected.size != sums.size:
            return sums.size
        expected = expected.reshape(sums.shape) * call.factor
        if call.turned is not None:
            expected = np.where(call.turned, -expected, expected)
        wrong = sums != expected
        return int(wrong[..., ~empty].sum() if empty is not None else wrong.sum())

    def _check_operands(
        self,
        check: LayerCheck,
        call: KernelCall,
        reads: Sequence[Read],
        run: ReferenceRun,
        values: list[np.ndarray],
        injections: Mapping[str, Injection],
    ) -> None:
        for position, read in enumerate(reads):
            theirs = run.layer_inputs[call.layer.name][position]
            if quantizer := call.layer.packing.quantizer:
                steps = np.clip(theirs * quantizer.factor, -127, 127) - read.codes
                check.wrong_bits += int((np.abs(steps) > _HALF_A_STEP).sum())
                continue
            if call.part:
                self._check_sum(check, call, read, theirs, values, injections)
                continue
            value = self._value(call, position, theirs)
            signs = signs_of(theirs, call, position, value)
            theirs = theirs - theirs.dtype.type(middle_of(call))
            # Of values far from 0 and near to each other the two have rounded before they were subtracted.
            near = TOLERANCE * max(abs(value), abs(middle_of(call)))
            far = np.abs(np.abs(theirs) - abs(value)) > near
            at_middle = signs == 0
            if (far & ~at_middle)[read.inside].any():
                check.reason = "Its operand has more than two values in the source"
            at_zero = np.zeros_like(far) if call.is_zero_one(position) else at_middle & (read.codes == 1)
            flipped = np.zeros_like(far)
            flipped[read.inside] = (signs != read.codes)[read.inside]
            flipped &= ~at_zero
            check.signs += read.codes[read.inside].size
            check.signs_at_zero += int(at_zero.sum())
            check.flipped_signs += int(flipped.sum())
            if flipped.any() or at_zero.any():
                ours = injections[call.layer.name].operands[position]
                side = partial(side_of, middle=middle_of(call))
                excused = self.rounding.excused(
                    call.layer.name, position, flipped | at_zero, ours, values, injections, side
                )
                check.excused_flips += int((excused & flipped).sum())
                if no_accident := int((at_zero & ~excused).sum()):
                    signs_are = "sign is" if no_accident == 1 else "signs are"
                    check.reason = f"{no_accident} {signs_are} of a 0 that no rounding made, and +1 here"
            if check.signs_at_zero and call.layer.name not in self.zero_is_one:
                check.reason = "The source has exact zeros where it has signs, and no note says so"

    def _check_sum(
        self,
        check: LayerCheck,
        call: KernelCall,
        read: Read,
        theirs: np.ndarray,
        values: list[np.ndarray],
        injections: Mapping[str, Injection],
    ) -> None:
        """An operand that is the sum of several two-valued ones."""
        parts = {c.plane: c.part for c in self.calls if c.layer.name == call.layer.name and c.part}
        levels = np.unique([sum(pick) for pick in product(*parts.values())])
        near = TOLERANCE * np.abs(levels).max()
        middles = (levels[1:] + levels[:-1]) / 2
        if (np.abs(theirs - levels[np.searchsorted(middles, theirs)]) > near)[read.inside].any():
            check.reason = f"Its operand has other values in the source than {len(levels)} sums of bits"
        flipped = np.zeros(theirs.shape, bool)
        flipped[read.inside] = (np.abs(theirs - read.codes) > near)[read.inside]
        check.signs += read.codes[read.inside].size
        check.flipped_signs += int(flipped.sum())
        if flipped.any():
            [ours] = injections[call.layer.name].operands
            excused = self.rounding.excused(
                call.layer.name,
                0,
                flipped,
                ours,
                values,
                injections,
                partial(place_among, middles),
            )
            check.excused_flips += int(excused.sum())

    # ---- what came out

    def reason(self) -> str:
        """Why it failed, in sentences; empty where it did not."""
        checks = self.checks.values()
        sentences = [self.structure]
        sentences += [f"{c.name}: {c.reason}." for c in checks if c.reason]
        if wrong := [f"{c.name} ({c.why()})" for c in checks if not c.passed and not c.reason]:
            sentences.append(f"These layers do not compute what they should: {', '.join(wrong)}.")
        if flips := sum(check.unexcused_flips for check in checks):
            sentences.append(f"{flips:,} signs are not the source's, and rounding does not explain it.")
        sentences.append(self.floats.reason())
        sentences += self.outputs.reasons()
        return " ".join(filter(None, sentences))

    def missed(self) -> list[str]:
        """What was not looked at, in sentences."""
        sentences = []
        if self.outputs.samples and not self.outputs.tops:
            sentences.append("The first output is not a score for each class, so no agreement was counted.")
        if self.int8:
            sentences.append("Agreement with the network in float is reported, and was not demanded.")
        if self.in_half:
            reached = [f"output {of}" if isinstance(of, int) else of for of in self.in_half]
            sentences.append(
                f"Layers in float16 reach {', '.join(sorted(reached))}: there {IN_HALF:,.0f} times what "
                "float32 rounds passed as rounding."
            )
        if self.rounding.unmeasured:
            sentences.append(
                "The source does not run in float64: a fixed part of the largest value stood for rounding."
            )
        empty = sum(int(e.sum()) for _, _, e in self._weights.values() if e is not None)
        if empty:
            sentences.append(f"{empty} output channels have weights of 0, and their sums do not matter.")
        return sentences

    def record(self) -> dict[str, Any]:
        """The fields of a `Verification` that were counted here."""
        checks, outputs = self.checks.values(), self.outputs
        return {
            "samples": outputs.samples,
            "agreement": outputs.agreeing / outputs.tops if outputs.tops else None,
            "max_abs_error": outputs.max_abs_error if outputs.samples else None,
            "signs": self.floats.signs + sum(check.signs for check in checks),
            "flipped_signs": self.floats.flipped + sum(check.flipped_signs for check in checks),
            "excused_flips": self.floats.excused + sum(check.excused_flips for check in checks),
            "unexcused_flips": self.floats.flipped
            - self.floats.excused
            + sum(check.unexcused_flips for check in checks),
            "signs_at_zero": sum(check.signs_at_zero for check in checks),
            "outputs_off": outputs.off,
            "integers_exact": all(check.exact for check in checks),
            "layers": tuple(check.record() for check in checks),
        }
