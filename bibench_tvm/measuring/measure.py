"""One artifact on one board: latency, layer by layer, memory, size, accuracy, and under which conditions.

A board that is emulated has no time: there the unit is executed instructions.
Needs neither torch nor onnx.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

import numpy as np

from bibench_tvm.artifact.artifact import Artifact
from bibench_tvm.artifact.manifest import LayerRecord, Manifest
from bibench_tvm.cli.arrays import random_array
from bibench_tvm.cli.errors import UsageError

if TYPE_CHECKING:
    from rpc.devices.device import Device, NetworkOnDevice
    from rpc.session import Board, Network

MILLISECONDS, INSTRUCTIONS = "ms", "instructions"
# The conditions of a measurement that may be trusted.
BUSY = 0.3  # of the cores that it is timed on, so much taken by others: by the load average before
HOT = 80.0  # degrees Celsius; boards throttle from 80 to 85 on
SLOWED = 0.95  # of the clock before
WIDE = 0.1  # spread of the runs

Images = tuple[np.ndarray, np.ndarray]
_TIMED_S = 2.0
_RUNS = (10, 200)
_PROFILED_RUNS = 30


def unit_of(board: Board | Device) -> str:
    return INSTRUCTIONS if board.info.emulated else MILLISECONDS


def in_unit(seconds: Sequence[float], unit: str) -> list[float]:
    """What a board returned, in the unit that it stands for; an emulated one returns instructions * 1e-9."""
    return [round(s * 1e9) if unit == INSTRUCTIONS else s * 1e3 for s in seconds]


def statistics(values: Sequence[float]) -> dict[str, float]:
    """Median, 90th percentile, minimum, and the spread: the middle half's width, relative to the median."""
    middle = median(values)
    low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else [middle] * 3
    p90 = float(np.percentile(values, 90))
    spread = (high - low) / middle if middle else 0.0
    return {"median": middle, "p90": p90, "min": min(values), "spread": spread, "runs": len(values)}


def measure(
    artifact: Artifact,
    board: Board | Device,
    *,
    images: Images | str,
    runs: int | None,
    progress: Callable[[str, int], Any],
) -> dict[str, Any]:
    """The report of one artifact on one board.

    images: float32 (N, ...) and the class of each, or the reason why there are none; runs: how many are
    timed, by default those of about two seconds, between 10 and 200; progress: `console.phase`. Raises
    BibenchError, and what the board raises. A device without TVM has no times of layers, and is checked.
    """
    from bibench_tvm.measuring.device import facts

    manifest, unit = artifact.record, unit_of(board)
    before = board.conditions()
    with progress(f"{board.info.key}: sending {artifact.folder}", 1) as advance:
        network = artifact.network_on(board)
        advance()
    inputs = sample_inputs(manifest, None if isinstance(images, str) else images[0])
    once = max(min(network.time(inputs, number=1, repeat=3)), 1e-9)
    count = runs or (3 if unit == INSTRUCTIONS else int(min(max(_TIMED_S / once, _RUNS[0]), _RUNS[1])))
    together = count if once * count <= board.part_s else max(1, int(board.part_s / once))
    values: list[float] = []
    with progress(f"{board.info.key}: timing {count} runs", count) as advance:
        while len(values) < count:
            part = min(together, count - len(values))
            values += in_unit(network.time(inputs, number=1, repeat=part), unit)
            for _ in range(part):
                advance()
    profiled = 1 if unit == INSTRUCTIONS else min(count, _PROFILED_RUNS)
    with progress(f"{board.info.key}: layer by layer, {profiled} runs", 1) as advance:
        profile = network.profile(inputs, repeat=profiled)
        advance()
    memory = network.peak_memory_bytes()
    on_device = facts(network, inputs) if board.takes_c else {}
    accuracy, reason = None, images if isinstance(images, str) else ""
    if not isinstance(images, str):
        accuracy = _accuracy(network, manifest, *images, board.info.key, progress)
    after, threads = board.conditions(), board.threads()
    layers, other = _by_layer(manifest, profile, unit)
    total = statistics(values)
    return {
        "artifact": str(artifact.folder),
        "model": manifest.model,
        "algorithm": manifest.algorithm,
        "target": manifest.target.name,
        "board": dict(vars(board.info)),
        "emulated": board.info.emulated,
        "unit": unit,
        "threads": threads,
        "latency_ms": total if unit == MILLISECONDS else None,
        "instructions": total if unit == INSTRUCTIONS else None,
        "layers": layers,
        "other_kernels": other,
        "layers_sum": sum(entry["cost"] for entry in (*layers, *other)),
        "peak_memory_bytes": memory,
        "activation_bytes": manifest.memory_bytes.peak_activations,
        "size_bytes": manifest.size_bytes.deployed,
        "accuracy": accuracy,
        "accuracy_reason": reason,
        "conditions": {"before": before, "after": after},
        "warnings": []
        if board.info.emulated
        else warnings_of(board.info.cores, threads, before, after, total["spread"]),
        **on_device,
    }


def warnings_of(
    cores: int, threads: int, before: Mapping[str, Any], after: Mapping[str, Any], spread: float
) -> list[str]:
    """What spoils a timing on so many threads, in sentences.

    before, after: `Board.conditions()` around it, where None is unknown; spread: of its runs.
    """
    found = []
    if (governor := after.get("governor")) not in (None, "performance"):
        found.append(
            f"The frequency governor is {governor}, so the clock changes while it is timed. Type on the "
            "board: echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        )
    if _throttled(before, after):
        found.append("The board throttled itself: it is too hot, or its supply too weak. Times are too long.")
    temperature = after.get("temperature_c")
    if temperature is not None and temperature >= HOT:
        found.append(f"The board is at {temperature:.0f} degrees Celsius, where many throttle. Cool it.")
    first, last = before.get("mhz"), after.get("mhz")
    if first and last and last < SLOWED * first:
        found.append(f"The clock fell from {first:.0f} to {last:.0f} MHz while it was timed.")
    load = before.get("load_average")
    there = max(cores, 1)
    used = min(threads, there)
    if load is not None and load > there - used + BUSY * used:
        found.append(
            f"The load average was {load:.2f} on {cores} {_counted('core', cores)} before it was timed on "
            f"{threads} {_counted('thread', threads)}: other programs may have run beside it."
        )
    if spread > WIDE:
        found.append(f"The runs differ: the middle half of them spreads over {spread:.0%} of the median.")
    return found


def _counted(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"


def _throttled(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """From the Raspberry Pi's word: bits 0 to 3 are now, 16 to 19 since it was started."""
    try:
        first, last = (int(state.get("throttled") or "0", 16) for state in (before, after))
    except (TypeError, ValueError):
        return False
    return bool((first | last) & 0xF or last & ~first & 0xF0000)


def sample_inputs(manifest: Manifest, images: np.ndarray | None) -> list[np.ndarray]:
    """One array for each input: the first images, or numbers at random."""
    if images is not None:
        return [next(_batches(manifest, images))]
    generator = np.random.default_rng(0)
    return [random_array(generator, tensor.shape, tensor.dtype) for tensor in manifest.inputs]


def check_images(manifest: Manifest, images: np.ndarray, path: object) -> None:
    """Raise UsageError where the network does not take these images, float32 (N, ...), or has no classes."""
    if len(manifest.inputs) != 1 or len(manifest.outputs) != 1:
        raise UsageError(
            f"Accuracy is of networks with one input and one output; {manifest.model} has "
            f"{len(manifest.inputs)} and {len(manifest.outputs)}."
        )
    (spec,), (output,) = manifest.inputs, manifest.outputs
    if spec.dtype != "float32" or images.shape[1:] != spec.shape[1:]:
        raise UsageError(
            f"{path} has images of shape {images.shape[1:]}, and {manifest.model} takes {spec.dtype} "
            f"{spec.shape[1:]}."
        )
    if len(output.shape) != 2 or output.shape[0] != spec.shape[0]:
        raise UsageError(
            f"The output of {manifest.model} has shape {output.shape}; an accuracy needs one "
            "score for each class, (batch, classes)."
        )
    if manifest.one_batch_only:
        raise UsageError(
            f"{path} cannot be cut into batches for {manifest.model}: {manifest.one_batch_only}."
        )


def _batches(manifest: Manifest, images: np.ndarray) -> Iterator[np.ndarray]:
    """Whole batches: the last one is filled up with its last image."""
    size = manifest.inputs[0].shape[0]
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        filled = np.concatenate([batch, np.repeat(batch[-1:], size - len(batch), axis=0)])
        yield np.ascontiguousarray(filled)


def _accuracy(
    network: Network | NetworkOnDevice,
    manifest: Manifest,
    images: np.ndarray,
    labels: np.ndarray,
    key: str,
    progress: Callable[[str, int], Any],
) -> dict[str, Any]:
    right = done = 0
    with progress(f"{key}: accuracy on {len(images)} images", len(images)) as advance:
        for outputs in network.run_each([batch] for batch in _batches(manifest, images)):
            scores = outputs[0][: len(images) - done]
            counted = len(scores)
            right += int((scores.argmax(-1) == labels[done : done + counted]).sum())
            done += counted
            for _ in range(counted):
                advance()
    return {"top1": right / done, "images": done}


def _bytes_read(layer: LayerRecord) -> int | None:
    """Of weights and operand as they are kept, each once; None of a product of two activations."""
    conv = layer.geometry
    if conv is None:
        return None
    operands = conv.batch * conv.height * conv.width * conv.channels
    each = {"binary": 1 / 8, "int8": 1, "float16": 2, "float32": 4}[layer.dtype]
    return layer.weight_bytes + round(operands * each)


def _by_layer(
    manifest: Manifest,
    profile: Sequence[tuple[str, Sequence[float]]],
    unit: str,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(an entry for each layer that has a kernel, an entry for each other kernel), with the median cost."""
    waiting: dict[str, list[str]] = {}
    for call in manifest.kernels:
        waiting.setdefault(call.kernel, []).append(call.layer)
    known = {layer.name: layer for layer in manifest.layers}
    layers: list[dict[str, Any]] = []
    other: dict[str, dict[str, Any]] = {}
    for kernel, seconds in profile:
        cost = median(in_unit(seconds, unit))
        if waiting.get(kernel):
            layer = known[waiting[kernel].pop(0)]
            entry = {field: getattr(layer, field) for field in ("name", "op", "binarized", "reason", "macs")}
            layers.append({**entry, "bytes": _bytes_read(layer), "kernel": kernel, "cost": cost})
        else:
            entry = other.setdefault(kernel, {"kernel": kernel, "calls": 0, "cost": 0.0})
            entry["calls"] += 1
            entry["cost"] += cost
    return layers, list(other.values())
