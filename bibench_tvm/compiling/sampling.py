"""What a network is verified and calibrated on: samples that somebody gave, or numbers at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bibench_tvm.cli.arrays import random_array
from bibench_tvm.cli.errors import UsageError

if TYPE_CHECKING:
    from bibench_tvm.importer import Imported, TensorSpec

GivenSamples = np.ndarray | Mapping[str, np.ndarray]
"""[N, ...] of the network's one input, or of each input by its name."""

Samples = Sequence[Sequence[np.ndarray]]
"""samples[i][j]: input j of run i."""


def check_samples(samples: GivenSamples, labels: np.ndarray | None) -> None:
    """Before anything is built. Names and shapes are checked where the network's are known."""
    arrays = samples if isinstance(samples, Mapping) else {"": samples}
    if not arrays:
        raise UsageError("There are no arrays in the samples.")
    for name, array in arrays.items():
        array, what = np.asarray(array), f"The samples of {name!r}" if name else "The samples"
        if array.dtype.kind not in "fiub" or not array.size:
            raise UsageError(f"{what} are {array.dtype} {array.shape}; they have to be numbers, and some.")
        if not np.isfinite(array).all():
            raise UsageError(f"{what} hold NaN or infinities.")
    if labels is None:
        return
    count = next(iter(np.shape(array)[:1] for array in arrays.values()))
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu" or labels.shape != count:
        raise UsageError(
            f"The labels are {labels.dtype} {labels.shape}; they have to be one integer for each of the "
            f"{count[0] if count else 0} samples."
        )


def sample_inputs(imported: Imported, count: int, samples: GivenSamples | None) -> list[list[np.ndarray]]:
    """Inputs for `count` runs: from `samples`, or random and the same each time. Raises UsageError."""
    if not count:
        return []
    limits = index_limits(imported)
    if samples is None:
        return _random(imported, count, limits)
    given = _by_name(imported, samples)
    columns = []
    for spec in imported.inputs:
        what = f"The samples of {spec.name!r}" if len(imported.inputs) > 1 else "The samples"
        array = _of_dtype(np.asarray(given[spec.name]), spec, limits.get(spec.name), what)
        rows, shape = (spec.shape[0], spec.shape[1:]) if spec.shape else (1, ())
        if array.shape[1:] != shape or len(array) < count * rows:
            raise UsageError(
                f"{what} have shape {array.shape}; {count} runs of the network take at least "
                f"{(count * rows, *shape)}."
            )
        parts = np.split(array[: count * rows], count)
        columns.append([np.ascontiguousarray(part).reshape(spec.shape) for part in parts])
    return [list(run) for run in zip(*columns, strict=True)]


def count_runs(imported: Imported, samples: GivenSamples) -> int:
    """How many whole runs the samples are enough for. Raises UsageError."""
    given = _by_name(imported, samples)
    return min(
        len(given[spec.name]) // (spec.shape[0] if spec.shape else 1) if np.ndim(given[spec.name]) else 0
        for spec in imported.inputs
    )


def what_random_inputs_miss(imported: Imported) -> list[str]:
    """In sentences."""
    missed = ["The inputs were random numbers, and may be unlike real ones: --samples takes those."]
    limits = index_limits(imported)
    for spec in imported.inputs:
        if "int" in spec.dtype and _range(spec, limits.get(spec.name)) == (0, 1) and spec.name not in limits:
            missed.append(f"The input {spec.name!r} ({spec.dtype}) was tried with 0 and 1 alone.")
    return missed


def index_limits(imported: Imported) -> dict[str, int]:
    """Integer input -> how many different values it may have, where it picks rows of a table."""
    from tvm import relax

    main = imported.module["main"]
    # Variable -> integer inputs that it is made from.
    origins: dict[Any, set[str]] = {
        param: {spec.name} if "int" in spec.dtype else set()
        for param, spec in zip(main.params, imported.inputs, strict=True)
    }
    limits: dict[str, int] = {}
    for block in main.body.blocks:
        for binding in block.bindings:
            value = getattr(binding, "value", None)
            reads = [a for a in getattr(value, "args", ()) if isinstance(a, relax.Var)]
            origins[binding.var] = set().union(*(origins.get(v, set()) for v in reads))
            if isinstance(value, relax.Call) and (found := _picked(value)):
                index, extent = found
                for name in origins.get(index, ()):
                    limits[name] = min(limits.get(name, extent), extent)
    return limits


def _picked(call: Any) -> tuple[Any, int] | None:
    """(index, how many rows there are), where a call picks rows of a table."""
    name = getattr(call.op, "name", "")
    if name in ("relax.take", "relax.gather_elements"):
        shape = [int(extent) for extent in call.args[0].ty.shape]
        axis = call.attrs.axis
        return call.args[1], shape[int(axis)] if axis is not None else int(np.prod(shape))
    return (call.args[0], int(call.attrs.depth)) if name == "relax.one_hot" else None


def _range(spec: TensorSpec, limit: int | None) -> tuple[int, int]:
    """The least and the largest value that an integer input is tried with."""
    if limit is not None:
        return 0, limit - 1
    if spec.dtype in ("int8", "uint8", "int16", "uint16"):
        info = np.iinfo(spec.dtype)
        return int(info.min), int(info.max)
    return 0, 1


def _random(imported: Imported, count: int, limits: Mapping[str, int]) -> list[list[np.ndarray]]:
    generator = np.random.default_rng(0)
    runs = []
    for run in range(count):
        arrays = []
        for spec in imported.inputs:
            if "int" not in spec.dtype:
                arrays.append(random_array(generator, spec.shape, spec.dtype))
                continue
            low, high = _range(spec, limits.get(spec.name))
            array = generator.integers(low, high, spec.shape, spec.dtype, endpoint=True)
            array = np.asarray(array, spec.dtype)
            if run < 2 and array.size:  # the extremes, also of one number in one run
                array.reshape(-1)[[0, -1]] = (low, high) if run == 0 else (high, low)
            arrays.append(array)
        runs.append(arrays)
    return runs


def _by_name(imported: Imported, samples: GivenSamples) -> Mapping[str, np.ndarray]:
    names = [spec.name for spec in imported.inputs]
    if not isinstance(samples, Mapping):
        if len(names) != 1:
            raise UsageError(
                f"The network has {len(names)} inputs, and the samples are one array; give one for each "
                f"input by its name ({', '.join(names)}), as an .npz file or a dictionary."
            )
        return {names[0]: samples}
    if missing := [name for name in names if name not in samples]:
        raise UsageError(
            f"The samples lack {', '.join(missing)}; the inputs of the network are {', '.join(names)}."
        )
    if extra := [name for name in samples if name not in names]:
        raise UsageError(
            f"The network has no input {', '.join(extra)}, which is in the samples; its inputs are "
            f"{', '.join(names)}."
        )
    return samples


def _of_dtype(array: np.ndarray, spec: TensorSpec, limit: int | None, what: str) -> np.ndarray:
    """In the dtype of the input, where that loses nothing but digits of a float."""
    if "float" in spec.dtype:
        return array.astype(spec.dtype)
    if array.dtype.kind not in "iub":
        raise UsageError(f"{what} are {array.dtype}, and the network takes {spec.dtype}.")
    low, high = int(array.min()), int(array.max())
    if spec.dtype == "bool":
        least, most = 0, 1
    elif limit is not None:
        least, most = 0, limit - 1
    else:
        info = np.iinfo(spec.dtype)
        least, most = int(info.min), int(info.max)
    if low < least or high > most:
        raise UsageError(
            f"{what} reach from {low} to {high}, and the network takes {spec.dtype} from {least} to {most}."
        )
    return array.astype(spec.dtype)
